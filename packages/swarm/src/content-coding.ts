import type { FileHandle } from 'node:fs/promises';
import { pipeline, type Transform } from 'node:stream';
import { createBrotliDecompress, createGunzip, createInflate, createZstdDecompress } from 'node:zlib';
import { PantalaError } from '@pantala/base';

/** Bytes of what an encoded answer may hold: more than a layer has, less than a bomb of some megabytes would make. */
export const MAX_DECODED_LENGTH = 16 * 1024 ** 3;

/** Content codings of RFC 9110 §8.4.1, RFC 7932 and RFC 8878. */
const DECODERS: ReadonlyMap<string, () => Transform> = new Map<string, () => Transform>([
  ['gzip', createGunzip],
  ['x-gzip', createGunzip],
  ['deflate', createInflate],
  ['br', createBrotliDecompress],
  ['zstd', createZstdDecompress],
]);

/**
 * What an answer with a content coding encodes.
 *
 * @param file the answer's body
 * @throws `unimplemented` for a coding that is not known; `data-loss` when the body is not of that coding;
 *   `resource-exhausted` beyond MAX_DECODED_LENGTH
 */
export async function* decoded(
  file: FileHandle,
  coding: string,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer> {
  const name = coding.trim().toLowerCase();
  const decoder = DECODERS.get(name)?.();
  if (decoder === undefined) {
    const known = [...DECODERS.keys()].join(', ');
    throw new PantalaError(
      'unimplemented',
      `the origin encodes with "${name.slice(0, 30)}", which was not asked for; known are ${known}`,
    );
  }
  const source = file.createReadStream({ start: 0, autoClose: false, ...(signal === undefined ? {} : { signal }) });
  pipeline(source, decoder, () => undefined);
  let length = 0;
  try {
    for await (const chunk of decoder as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > MAX_DECODED_LENGTH) {
        throw new PantalaError(
          'resource-exhausted',
          `what the origin encoded has more than ${MAX_DECODED_LENGTH} bytes`,
        );
      }
      yield chunk;
    }
  } catch (error) {
    if (error instanceof PantalaError || signal?.aborted === true) throw error;
    throw new PantalaError('data-loss', `the origin's answer is not in its content coding ${name}: ${String(error)}`);
  } finally {
    decoder.destroy();
  }
}
