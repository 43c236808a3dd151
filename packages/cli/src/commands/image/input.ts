import { stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PantalaError } from '@pantala/base';
import {
  FolderBlobs,
  ImageBlobs,
  type NydusImage,
  NydusImageBlobs,
  openNydusImage,
  readBootstrapFile,
  WindowedBlobs,
} from '@pantala/convert';
import { openImageSource, parsePlatformText } from '@pantala/oci';
import type { RafsImage } from '@pantala/rafs';
import type { CommonOptions } from '../../output.ts';
import { type AccessOptions, accessOf } from './access.ts';
import { misnamed } from './misnamed.ts';

/** What names an image that is there: an argument, or a bootstrap and the folder of its blobs. */
export interface ImageInputOptions extends CommonOptions, AccessOptions {
  readonly bootstrap?: string;
  readonly blobDir?: string;
  /** Default: the one that an image is for, of an index this machine's. */
  readonly platform?: string;
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
  /** What is around the bootstrap of an image in a registry, a layout or an archive. */
  readonly nydus: NydusImage | undefined;
}

/**
 * Opens the image that an argument or `--bootstrap` names: a bootstrap or a blob with one in it, whose blobs lie in
 * `--blob-dir` or beside it; else an image in a registry, an OCI layout or an archive.
 *
 * @throws `invalid-argument`, `not-found`; `data-loss` for a damaged bootstrap
 */
export async function openImage(
  argument: string | undefined,
  options: ImageInputOptions,
  signal?: AbortSignal,
): Promise<OpenedImage> {
  const { bootstrap, blobDir } = options;
  if (argument !== undefined && bootstrap !== undefined) {
    throw new PantalaError('invalid-argument', `name the image once: "${argument}" or --bootstrap ${bootstrap}`);
  }
  const named = argument ?? bootstrap;
  if (named === undefined) throw new PantalaError('invalid-argument', 'name an image, or --bootstrap and --blob-dir');
  if (bootstrap !== undefined || blobDir !== undefined) return openFile(named, options);
  if ((await stat(named).catch(() => undefined))?.isFile() !== true) {
    return openSource(named, options, signal).catch(async (thrown: unknown) => {
      throw await misnamed(named, thrown);
    });
  }
  try {
    return await openFile(named, options);
  } catch (error) {
    // Neither a bootstrap nor a blob: an archive, if it is that.
    if (PantalaError.from(error).code !== 'invalid-argument') throw error;
    return openSource(`oci-archive:${named}`, options, signal).catch((thrown: unknown) => {
      const { code, message } = PantalaError.from(thrown);
      if (code !== 'invalid-argument' && code !== 'data-loss') throw thrown;
      throw new PantalaError(code, `${PantalaError.from(error).message}; as an archive: ${message}`, { cause: error });
    });
  }
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
    nydus: undefined,
    [Symbol.asyncDispose]: () => stored[Symbol.asyncDispose](),
  };
}

async function checkDirectory(path: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isDirectory() !== true) throw new PantalaError('not-found', `--blob-dir ${path} is no directory`);
}

async function openSource(
  name: string,
  options: ImageInputOptions,
  signal: AbortSignal | undefined,
): Promise<OpenedImage> {
  await using opening = new AsyncDisposableStack();
  const source = opening.use(await openImageSource(name, accessOf(options, signal)));
  const nydus = await openNydusImage(source, {
    ...(options.platform === undefined ? {} : { platform: parsePlatformText(options.platform) }),
    ...(signal === undefined ? {} : { signal }),
  });
  const stored = opening.use(new WindowedBlobs(new NydusImageBlobs(nydus, signal)));
  const opened = opening.move();
  const { image, bootstrap: bytes } = nydus;
  return {
    name: source.name,
    path: undefined,
    bytes,
    image,
    isInlined: false,
    blobs: new ImageBlobs(image, stored),
    nydus,
    [Symbol.asyncDispose]: () => opened[Symbol.asyncDispose](),
  };
}
