import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { PantalaError } from '@pantala/base';
import { type DigestRule, imageDifferences, imageSourceTree, isBootstrapFile, tarSourceTree } from '@pantala/convert';
import { type OpenedImage, openImage } from './input.ts';

/** Bytes of a tar that are read at once. */
const READ_LENGTH = 1024 * 1024;

/**
 * What differs between an image and a source, a line each: a directory, a tar (plain, gzip or zstd), or another image.
 *
 * @throws `not-found`; `invalid-argument` when it is none of them
 */
export async function* differencesFrom(
  source: string,
  opened: OpenedImage,
  signal: AbortSignal,
): AsyncGenerator<string, void, undefined> {
  const { image } = opened.bootstrap;
  const rule: DigestRule = { digester: image.digester, chunkSize: image.chunkSize };
  const found = await stat(source).catch(() => undefined);
  if (found === undefined) throw new PantalaError('not-found', `--against ${source} is not there`);
  if (found.isDirectory()) {
    throw new PantalaError('unimplemented', 'directories');
  }
  if (await isBootstrapFile(source)) {
    await using other = await openImage(source, {});
    yield* imageDifferences(imageSourceTree(other.blobs, rule, signal), image.root);
    return;
  }
  const stream = createReadStream(source, { highWaterMark: READ_LENGTH });
  yield* imageDifferences(await tarSourceTree(stream, rule, signal), image.root);
}
