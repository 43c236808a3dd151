import { availableParallelism } from 'node:os';
import { promisify } from 'node:util';
import { constants, crc32, deflateRaw } from 'node:zlib';

const deflateBlock = promisify(deflateRaw);

/** Bytes that one thread compresses at once: a few milliseconds of work, and what is lost at its end is little. */
const BLOCK_LENGTH = 512 * 1024;
/** What deflate looks back: the end of the block before, so that the cut costs nothing else. */
const WINDOW_LENGTH = 32 * 1024;
/** Threads that Node has for this (libuv's default). */
const MAX_THREADS = 4;
/** RFC 1952: deflate, no name, no time, made on Unix. */
const HEADER = Buffer.from('1f8b0800000000000003', 'hex');
/** A last block with nothing in it. */
const END = Buffer.from('0300', 'hex');

/**
 * A stream as one gzip member, compressed by all processors: in blocks that end on a byte, each with the end of the one
 * before as its dictionary. The same bytes give the same, however they come and however many processors there are.
 */
export async function* gzipBlocks(content: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer, void, undefined> {
  const ahead = Math.min(availableParallelism(), MAX_THREADS) + 1;
  const open: Promise<Buffer>[] = [];
  let before: Buffer | undefined;
  let crc = 0;
  let length = 0;
  yield HEADER;
  try {
    for await (const block of inBlocks(content)) {
      crc = crc32(block, crc);
      length += block.length;
      const compressed = deflated(block, before);
      // Its turn comes later than its failure.
      compressed.catch(() => undefined);
      open.push(compressed);
      before = block;
      if (open.length >= ahead) yield await (open.shift() as Promise<Buffer>);
    }
    for (let next = open.shift(); next !== undefined; next = open.shift()) yield await next;
  } finally {
    await Promise.allSettled(open);
  }
  const trailer = Buffer.alloc(END.length + 8);
  END.copy(trailer);
  trailer.writeUInt32LE(crc, END.length);
  trailer.writeUInt32LE(length % 2 ** 32, END.length + 4);
  yield trailer;
}

function deflated(block: Buffer, before: Buffer | undefined): Promise<Buffer> {
  return deflateBlock(block, {
    finishFlush: constants.Z_SYNC_FLUSH,
    // All of it at once: each piece of output is another turn of threads.
    chunkSize: BLOCK_LENGTH + 4096,
    ...(before === undefined ? {} : { dictionary: before.subarray(-WINDOW_LENGTH) }),
  });
}

async function* inBlocks(content: AsyncIterable<Uint8Array>): AsyncGenerator<Buffer, void, undefined> {
  let block = Buffer.allocUnsafe(BLOCK_LENGTH);
  let filled = 0;
  for await (const piece of content) {
    for (let at = 0; at < piece.length; ) {
      const step = Math.min(piece.length - at, BLOCK_LENGTH - filled);
      block.set(piece.subarray(at, at + step), filled);
      at += step;
      filled += step;
      if (filled < BLOCK_LENGTH) continue;
      yield block;
      block = Buffer.allocUnsafe(BLOCK_LENGTH);
      filled = 0;
    }
  }
  if (filled > 0) yield block.subarray(0, filled);
}
