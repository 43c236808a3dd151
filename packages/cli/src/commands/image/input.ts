import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PantalaError } from '@pantala/base';
import { type BootstrapFile, FolderBlobs, ImageBlobs, readBootstrapFile } from '@pantala/convert';
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
  readonly bootstrap: BootstrapFile;
  readonly blobs: ImageBlobs;
}

/**
 * Opens the image that an argument or `--bootstrap` names. The blobs of a bootstrap lie in `--blob-dir`; without it,
 * a blob that holds its own bootstrap is looked for where it is.
 *
 * @throws `invalid-argument`, `not-found`; `data-loss` for a damaged bootstrap
 */
export async function openImage(argument: string | undefined, options: ImageInputOptions): Promise<OpenedImage> {
  const path = bootstrapPath(argument, options);
  const bootstrap = await readBootstrapFile(path);
  const stored = new FolderBlobs(options.blobDir ?? dirname(path));
  return {
    name: path,
    bootstrap,
    blobs: new ImageBlobs(bootstrap.image, stored),
    [Symbol.asyncDispose]: () => stored[Symbol.asyncDispose](),
  };
}

function bootstrapPath(argument: string | undefined, { bootstrap }: ImageInputOptions): string {
  if (argument !== undefined && bootstrap !== undefined) {
    throw new PantalaError('invalid-argument', `name the image once: "${argument}" or --bootstrap ${bootstrap}`);
  }
  const path = argument ?? bootstrap;
  if (path === undefined) throw new PantalaError('invalid-argument', 'name an image, or --bootstrap and --blob-dir');
  return path;
}

/** @throws `invalid-argument` unless the folder of the blobs is there */
export async function checkBlobDirectory(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory() !== true) throw new PantalaError('not-found', `--blob-dir ${path} is no directory`);
}
