import { constants, createZstdDecompress } from 'node:zlib';
import { PantalaError } from '@pantala/base';
import { ByteFeed } from './byte-feed.ts';
import { gunzipped } from './gunzip.ts';
import { inflating } from './inflating.ts';

export type Compression = 'none' | 'gzip' | 'zstd';

export interface DecompressOptions {
  /** Bytes at most. Default MAX_DECOMPRESSED_LENGTH. */
  readonly maxLength?: number;
  /**
   * The reader is done with a piece when it asks for the next one, so its memory is given back then. V8 counts memory
   * that it has not allocated itself, and would mark the whole heap for every 64 MiB of it.
   */
  readonly frees?: boolean;
  /** Told once, before the first byte. */
  readonly onCompression?: (compression: Compression) => void;
  readonly signal?: AbortSignal;
}

/** Bytes that one stream may decompress to: nothing that is held grows with them, but time does. */
export const MAX_DECOMPRESSED_LENGTH = 1024 ** 4;
/** Logarithm of the window that a zstd stream may ask for, 128 MiB: what the zstd program takes unasked, too. */
export const MAX_ZSTD_WINDOW_LOG = 27;
/** Bytes that come out in one piece. */
const OUTPUT_LENGTH = 1024 * 1024;
/** Bytes that tell the formats apart. */
const MAGIC_LENGTH = 10;
/** First bytes, hex. */
const MAGICS: readonly (readonly [compression: Compression, magic: RegExp])[] = [
  ['gzip', /^1f8b/],
  // A frame, or one that is to be skipped.
  ['zstd', /^(?:28b52ffd|5[0-9a-f]2a4d18)/],
];
/** Formats that are told apart only to say so. */
const FOREIGN: readonly (readonly [name: string, magic: RegExp])[] = [
  ['xz', /^fd377a585a00/],
  ['bzip2', /^425a683[1-9]314159265359/],
  ['lz4', /^04224d18/],
  ['lzip', /^4c5a495001/],
];

/**
 * A stream without its compression, which its first bytes tell, whatever a media type says: gzip of several members,
 * zstd of several frames (RFC 8878), or none. Closes the source.
 *
 * @throws `data-loss` when it is damaged or cut off, `unimplemented` for other compressions, `invalid-argument` when it
 * becomes longer than allowed, and what the source throws
 */
export async function* decompressed(
  source: AsyncIterable<Uint8Array>,
  options: DecompressOptions = {},
): AsyncGenerator<Buffer, void, undefined> {
  const limit = options.maxLength ?? MAX_DECOMPRESSED_LENGTH;
  const feed = new ByteFeed(source);
  try {
    await feed.hold(MAGIC_LENGTH);
    const compression = compressionOf(feed.peek());
    options.onCompression?.(compression);
    let length = 0;
    for await (const piece of plain(feed, compression, options.signal)) {
      length += piece.length;
      if (length > limit)
        throw new PantalaError(
          'invalid-argument',
          `the ${compression} stream decompresses to more than ${limit} bytes`,
        );
      yield piece;
      if (options.frees === true && compression !== 'none') free(piece);
    }
  } finally {
    await feed.close();
  }
}

/** Only with the last piece that a decompressor puts into its buffer: it writes on behind the others. */
function free({ buffer, byteOffset, byteLength }: Buffer): void {
  if (buffer instanceof ArrayBuffer && byteOffset + byteLength === buffer.byteLength) buffer.transfer(0);
}

/** @throws `unimplemented` for a compression that layers do not have */
export function compressionOf(start: Uint8Array): Compression {
  const hex = Buffer.from(start.subarray(0, MAGIC_LENGTH)).toString('hex');
  const known = MAGICS.find(([, magic]) => magic.test(hex))?.[0];
  if (known !== undefined) return known;
  const foreign = FOREIGN.find(([, magic]) => magic.test(hex))?.[0];
  if (foreign !== undefined)
    throw new PantalaError('unimplemented', `the stream is compressed with ${foreign}; layers have gzip, zstd or none`);
  return 'none';
}

function plain(feed: ByteFeed, compression: Compression, signal: AbortSignal | undefined): AsyncIterable<Buffer> {
  if (compression === 'gzip') return gunzipped(feed, signal);
  return compression === 'zstd' ? unzstd(feed, signal) : asItIs(feed);
}

async function* asItIs(feed: ByteFeed): AsyncGenerator<Buffer> {
  for (let piece = await feed.some(Infinity); piece !== undefined; piece = await feed.some(Infinity)) yield piece;
}

async function* unzstd(feed: ByteFeed, signal: AbortSignal | undefined): AsyncGenerator<Buffer> {
  const decompressor = createZstdDecompress({
    chunkSize: OUTPUT_LENGTH,
    params: { [constants.ZSTD_d_windowLogMax]: MAX_ZSTD_WINDOW_LOG },
  });
  try {
    yield* inflating(feed, decompressor, signal);
  } catch (thrown) {
    const { code, message } = thrown as NodeJS.ErrnoException;
    if (code === 'Z_BUF_ERROR') throw damaged('is cut off', thrown);
    throw code?.startsWith('ZSTD_') === true ? damaged(`is damaged: ${message}`, thrown) : thrown;
  }
  // The decompressor stops at what is no frame.
  if ((await feed.some(1)) !== undefined) throw damaged(`has something else at byte ${feed.position - 1}`, undefined);
}

function damaged(how: string, cause: unknown): PantalaError {
  return new PantalaError('data-loss', `the zstd stream ${how}`, { cause });
}
