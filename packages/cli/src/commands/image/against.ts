import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { PantalaError } from '@pantala/base';
import {
  type DigestRule,
  directorySourceTree,
  imageDifferences,
  imageSourceTree,
  isBootstrapFile,
  tarSourceTree,
} from '@pantala/convert';
import type { Difference } from '@pantala/rafs';
import { type OpenedImage, openImage } from './input.ts';

/** Bytes of a tar that are read at once. */
const READ_LENGTH = 1024 * 1024;

/**
 * What differs between an image and a source: a directory, a tar (plain, gzip or zstd), or a bootstrap with its blobs
 * beside it.
 *
 * @throws `not-found`; `invalid-argument` when it is none of them
 */
export async function* differencesFrom(
  source: string,
  { image }: OpenedImage,
  signal: AbortSignal,
): AsyncGenerator<Difference, void, undefined> {
  const rule: DigestRule = { digester: image.digester, chunkSize: image.chunkSize };
  const found = await stat(source).catch(() => undefined);
  if (found === undefined) throw new PantalaError('not-found', `--against ${source} is not there`);
  if (found.isDirectory()) {
    yield* imageDifferences(await directorySourceTree(source, rule, signal), image.root);
  } else if (await isBootstrapFile(source)) {
    await using other = await openImage(source, {});
    yield* imageDifferences(imageSourceTree(other.blobs, rule, signal), image.root);
  } else {
    const stream = createReadStream(source, { highWaterMark: READ_LENGTH });
    yield* imageDifferences(await tarSourceTree(stream, rule, signal), image.root);
  }
}
