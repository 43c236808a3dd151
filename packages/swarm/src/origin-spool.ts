import { createHash, randomUUID } from 'node:crypto';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type ByteRange, lengthOf, PantalaError } from '@pantala/base';
import type { Origin, OriginRequest } from '@pantala/transfer';

/** Bytes read back at once. */
const READ_LENGTH = 1024 * 1024;

/** Content whose length its origin did not say, downloaded whole into a file without a name. */
export interface SpooledContent extends AsyncDisposable {
  readonly contentLength: number;
  readonly headers: Readonly<Record<string, string>>;
  /** The bytes of a range; the buffer is the caller's. */
  read(range: ByteRange): Promise<Buffer>;
}

/**
 * Downloads all of a resource to learn its length. A task cannot exist before its length is known, so its readers
 * wait until the last byte has arrived here.
 *
 * @param sha256 hex digest that the content must have, where it is known
 * @throws what the origin throws; `disk-full`; `data-loss` when the content does not have its digest
 */
export async function spoolContent(
  origin: Origin,
  request: OriginRequest,
  directory: string,
  sha256?: string,
): Promise<SpooledContent> {
  const path = join(directory, `pantala-spool-${randomUUID()}`);
  const file = await open(path, 'wx+', 0o600);
  try {
    await unlink(path);
    await using body = await origin.fetch(request);
    let contentLength = 0;
    const hash = sha256 === undefined ? undefined : createHash('sha256');
    for await (const chunk of body.chunks) {
      hash?.update(chunk);
      await file.write(chunk, 0, chunk.length, contentLength);
      contentLength += chunk.length;
    }
    if (hash?.digest('hex') !== sha256) {
      throw new PantalaError('data-loss', `the content of ${request.url} does not have the digest sha256:${sha256}`);
    }
    const { headers } = body;
    return {
      contentLength,
      headers,
      read: (range) => readRange(file, range),
      [Symbol.asyncDispose]: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw PantalaError.from(error);
  }
}

async function readRange(file: FileHandle, range: ByteRange): Promise<Buffer> {
  const data = Buffer.allocUnsafe(lengthOf(range));
  let filled = 0;
  while (filled < data.length) {
    const length = Math.min(READ_LENGTH, data.length - filled);
    const { bytesRead } = await file.read(data, filled, length, range.start + filled);
    if (bytesRead === 0) throw new PantalaError('data-loss', 'the spooled content is shorter than it was');
    filled += bytesRead;
  }
  return data;
}
