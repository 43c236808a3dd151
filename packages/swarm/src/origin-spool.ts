import { createHash, randomUUID } from 'node:crypto';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type ByteRange, lengthOf, PantalaError } from '@pantala/base';
import type { Origin, OriginRequest } from '@pantala/transfer';
import { decoded } from './content-coding.ts';

/** Bytes read back at once. */
const READ_LENGTH = 1024 * 1024;

/** Of an answer: what is not true of its body once the content coding is taken off. */
const OF_THE_CODING: readonly string[] = ['content-encoding', 'content-length', 'content-md5'];

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
 * A content coding that nobody asked for stays on the content, as its header says. Where the content's digest is
 * known, it decides whether that is of what was sent or of what was encoded; either way the header is gone, or a
 * client would decode once more.
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
  await using body = await origin.fetch(request);
  const { headers } = body;
  const sent = await spool(body.chunks, directory);
  if (sha256 === undefined) return contentOf(sent, headers);
  const plain = without(headers, OF_THE_CODING);
  if (sent.sha256 === sha256) return contentOf(sent, plain);
  await using file = sent.file;
  const coding = headers['content-encoding'];
  if (coding !== undefined) {
    const content = await spool(decoded(file, coding, request.signal), directory);
    if (content.sha256 === sha256) return contentOf(content, plain);
    await content.file.close();
  }
  const what = coding === undefined ? '' : `, with or without its content coding ${coding.slice(0, 30)},`;
  throw new PantalaError(
    'data-loss',
    `the content of ${request.url}${what} does not have the digest sha256:${sha256}; see what the registry has stored there`,
  );
}

interface Spooled {
  readonly file: FileHandle;
  readonly contentLength: number;
  readonly sha256: string;
}

async function spool(chunks: AsyncIterable<Buffer>, directory: string): Promise<Spooled> {
  const path = join(directory, `pantala-spool-${randomUUID()}`);
  const file = await open(path, 'wx+', 0o600);
  try {
    await unlink(path);
    let contentLength = 0;
    const hash = createHash('sha256');
    for await (const chunk of chunks) {
      hash.update(chunk);
      await file.write(chunk, 0, chunk.length, contentLength);
      contentLength += chunk.length;
    }
    return { file, contentLength, sha256: hash.digest('hex') };
  } catch (error) {
    await file.close();
    throw PantalaError.from(error);
  }
}

function contentOf({ file, contentLength }: Spooled, headers: Readonly<Record<string, string>>): SpooledContent {
  return {
    contentLength,
    headers,
    read: (range) => readRange(file, range),
    [Symbol.asyncDispose]: () => file.close(),
  };
}

function without(headers: Readonly<Record<string, string>>, names: readonly string[]): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !names.includes(name)));
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
