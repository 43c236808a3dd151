import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PantalaError } from '@pantala/base';
import { FolderBlobs, ImageBlobs, readBootstrapFile } from '@pantala/convert';
import type { RafsImage } from '@pantala/rafs';
import type { CommonOptions } from '../../output.ts';

/** What names an image that is there: an argument, or a bootstrap and the folder of its blobs. */
export interface ImageInputOptions extends CommonOptions {
  readonly bootstrap?: string;
  readonly blobDir?: string;
}

/** An image that can be read. */
export interface OpenedImage extends AsyncDisposable {
  /** As it was named, for messages. */
  readonly name: string;
  /** The bootstrap's own file; undefined when it came out of a layer. */
  readonly path: string | undefined;
  readonly bytes: Uint8Array;
  readonly image: RafsImage;
  /** Whether the bootstrap lies in the blob that it describes. */
  readonly isInlined: boolean;
  readonly blobs: ImageBlobs;
}

/**
 * Opens the image that an argument or `--bootstrap` names: a bootstrap or a blob with one in it, whose blobs lie in
 * `--blob-dir` or beside it.
 *
 * @throws `invalid-argument`, `not-found`; `data-loss` for a damaged bootstrap
 */
export async function openImage(argument: string | undefined, options: ImageInputOptions): Promise<OpenedImage> {
  const { bootstrap } = options;
  if (argument !== undefined && bootstrap !== undefined) {
    throw new PantalaError('invalid-argument', `name the image once: "${argument}" or --bootstrap ${bootstrap}`);
  }
  const named = argument ?? bootstrap;
  if (named === undefined) throw new PantalaError('invalid-argument', 'name an image, or --bootstrap and --blob-dir');
  return openFile(named, options);
}

async function openFile(path: string, { blobDir }: ImageInputOptions): Promise<OpenedImage> {
  const { image, bytes, blob } = await readBootstrapFile(path);
  if (blobDir !== undefined) await checkDirectory(blobDir);
  const stored = new FolderBlobs(blobDir ?? dirname(path));
  return {
    name: path,
    path,
    bytes,
    image,
    isInlined: blob !== undefined,
    blobs: new ImageBlobs(image, stored),
    [Symbol.asyncDispose]: () => stored[Symbol.asyncDispose](),
  };
}

async function checkDirectory(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory() !== true) throw new PantalaError('not-found', `--blob-dir ${path} is no directory`);
}
