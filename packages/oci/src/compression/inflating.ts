import type { Transform } from 'node:stream';
import { throwIfAborted } from '@pantala/base';
import type { ByteFeed } from './byte-feed.ts';

/** Bytes given to a decompressor at once. */
const INPUT_LENGTH = 256 * 1024;

/** A stream of node:zlib, which knows how much of its input it used. */
export type Decompressor = Transform & { readonly bytesWritten: number };

/**
 * What a decompressor makes of the feed, to the end of its format: what it does not want stays in the feed. It works
 * in a thread of its own meanwhile.
 *
 * @throws what the decompressor and the feed throw
 */
export async function* inflating(
  feed: ByteFeed,
  decompressor: Decompressor,
  signal: AbortSignal | undefined,
): AsyncGenerator<Buffer> {
  const feeding = feedAll(feed, decompressor, signal);
  // Its failure destroys the decompressor, which tells the reader below.
  feeding.catch((error: Error) => decompressor.destroy(error));
  try {
    for await (const piece of decompressor) yield piece as Buffer;
    await feeding;
  } finally {
    decompressor.destroy();
  }
}

async function feedAll(feed: ByteFeed, decompressor: Decompressor, signal: AbortSignal | undefined): Promise<void> {
  let written = 0;
  for (;;) {
    throwIfAborted(signal);
    const piece = await feed.some(INPUT_LENGTH);
    if (piece === undefined) {
      decompressor.end();
      return;
    }
    written += piece.length;
    await new Promise<void>((resolve, reject) => {
      decompressor.write(piece, (error) => (error ? reject(error) : resolve()));
    });
    const unused = written - decompressor.bytesWritten;
    if (unused > 0) {
      feed.untake(unused);
      return;
    }
  }
}
