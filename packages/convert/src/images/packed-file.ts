import { createHash, type Hash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { open } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { createZstdCompress } from 'node:zlib';
import { PantalaError, throwIfAborted } from '@pantala/base';
import type { BlobUpload } from '@pantala/oci';
import { gzipBlocks } from './gzip-blocks.ts';

export type LayerCompression = 'gzip' | 'zstd' | 'none';

/** A file that was written to be pushed. */
export interface PackedFile {
  readonly path: string;
  /** `sha256:<hex>` of the file. */
  readonly digest: string;
  /** Bytes of the file. */
  readonly size: number;
  /** `sha256:<hex>` of what was compressed. */
  readonly diffId: string;
}

/** Bytes that the compressor takes and gives at once. */
const CHUNK_LENGTH = 256 * 1024;

/** Compresses a stream into a new file, digesting it before and after. */
export async function packFile(
  path: string,
  content: AsyncIterable<Uint8Array>,
  compression: LayerCompression,
  signal?: AbortSignal,
): Promise<PackedFile> {
  const before = createHash('sha256');
  const after = createHash('sha256');
  let size = 0;
  await using file = await open(path, 'wx', 0o600).catch((error: unknown) => {
    throw PantalaError.from(error);
  });
  for await (const piece of compressedStream(digested(content, before, signal), compression)) {
    after.update(piece);
    size += piece.length;
    await file.writeFile(piece);
  }
  return { path, digest: `sha256:${after.digest('hex')}`, size, diffId: `sha256:${before.digest('hex')}` };
}

async function* digested(
  content: AsyncIterable<Uint8Array>,
  hash: Hash,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  for await (const piece of content) {
    throwIfAborted(signal);
    hash.update(piece);
    yield piece;
  }
}

async function* compressedStream(
  content: AsyncIterable<Uint8Array>,
  compression: LayerCompression,
): AsyncGenerator<Uint8Array> {
  if (compression === 'none') {
    yield* content;
    return;
  }
  if (compression === 'gzip') {
    yield* gzipBlocks(content);
    return;
  }
  const compressor = createZstdCompress();
  const feeding = Readable.from(content, { objectMode: false, highWaterMark: CHUNK_LENGTH });
  feeding.on('error', (error) => compressor.destroy(error));
  feeding.pipe(compressor);
  try {
    for await (const piece of compressor) yield piece as Buffer;
  } finally {
    feeding.destroy();
    compressor.destroy();
  }
}

/** A file as something to push. */
export function uploadOf(
  path: string,
  { digest, size }: { readonly digest: string; readonly size: number },
): BlobUpload {
  return { digest, size, open: () => createReadStream(path, { highWaterMark: CHUNK_LENGTH }) as AsyncIterable<Buffer> };
}
