import { randomUUID } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { rename, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { PantalaError } from '@pantala/base';
import { makeFolder } from '@pantala/convert';

/** @throws `already-exists` when a file is there that is not to be replaced */
export async function checkFree(path: string, overwrite: boolean): Promise<void> {
  if (overwrite || (await stat(path).catch(() => undefined)) === undefined) return;
  throw new PantalaError('already-exists', `${path} exists already; say --overwrite to replace it`);
}

/** Writes a file that has its name when it is complete, and replaces what was there at once. */
export async function writeWholeFile(
  path: string,
  content: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  signal?: AbortSignal,
): Promise<void> {
  const target = resolve(path);
  await makeFolder(dirname(target));
  const partial = join(dirname(target), `.${randomUUID()}.partial`);
  const options = signal === undefined ? {} : { signal };
  try {
    await pipeline(Readable.from(content, { objectMode: true }), createWriteStream(partial, { flags: 'wx' }), options);
    await rename(partial, target);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}
