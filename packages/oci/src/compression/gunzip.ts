import { constants, crc32, createInflateRaw, inflateRawSync, type ZlibOptions } from 'node:zlib';
import { PantalaError } from '@pantala/base';
import type { ByteFeed } from './byte-feed.ts';
import { inflating } from './inflating.ts';

/** Bytes that come out in one piece: large ones cost less in all that follows. */
const OUTPUT_LENGTH = 1024 * 1024;
/** Bytes of the name and the comment in a member's header; real ones are a file's name. */
const MAX_TEXT_LENGTH = 64 * 1024;
/** Members that decompress to at most this are inflated at once: bgzip and estargz have thousands of them. */
const SMALL_LENGTH = 256 * 1024;

const MAGIC = 0x8b1f;
const DEFLATE = 8;
const FLAGS = { headerChecksum: 0x02, extra: 0x04, name: 0x08, comment: 0x10, reserved: 0xe0 } as const;
const TRAILER_LENGTH = 8;

/**
 * The content of all members of a gzip file (RFC 1952), checked against their checksums. What follows the last one is
 * dropped, as gzip does: zeros that fill a tape's block, or garbage.
 *
 * @throws `data-loss` when a member is damaged or cut off, with its offset
 */
export async function* gunzipped(feed: ByteFeed, signal?: AbortSignal): AsyncGenerator<Buffer> {
  let small = false;
  for (let member = 0; member === 0 || (await anotherMember(feed)); member++) {
    const start = feed.position;
    await readHeader(feed, start);
    let crc = 0;
    let length = 0;
    const whole = small ? await smallMember(feed) : undefined;
    if (whole !== undefined) {
      crc = crc32(whole);
      length = whole.length;
      if (length > 0) yield whole;
    } else {
      try {
        for await (const piece of inflating(feed, createInflateRaw({ chunkSize: OUTPUT_LENGTH }), signal)) {
          crc = crc32(piece, crc);
          length += piece.length;
          yield piece;
        }
      } catch (thrown) {
        const code = (thrown as NodeJS.ErrnoException).code;
        if (code === 'Z_BUF_ERROR') throw cutOff(start, thrown);
        throw code?.startsWith('Z_') === true ? damaged(start, 'its data is no deflate', thrown) : thrown;
      }
    }
    small = length <= SMALL_LENGTH;
    if (!(await feed.hold(TRAILER_LENGTH))) throw cutOff(start);
    const trailer = feed.take(TRAILER_LENGTH);
    if (trailer.readUInt32LE(0) !== crc) throw damaged(start, 'its checksum is wrong');
    if (trailer.readUInt32LE(4) !== length % 2 ** 32) throw damaged(start, 'its length is wrong');
  }
  await feed.drain();
}

/** Looks for the next member, dropping what is none. */
async function anotherMember(feed: ByteFeed): Promise<boolean> {
  if (!(await feed.hold(2))) return false;
  return feed.peek().readUInt16LE(0) === MAGIC;
}

async function readHeader(feed: ByteFeed, start: number): Promise<void> {
  const take = async (length: number): Promise<Buffer> => {
    if (!(await feed.hold(length))) throw cutOff(start);
    return feed.take(length);
  };
  const fixed = await take(10);
  if (fixed.readUInt16LE(0) !== MAGIC) throw damaged(start, 'it is no gzip');
  if (fixed[2] !== DEFLATE) throw damaged(start, `its compression ${fixed[2]} is unknown`);
  const flags = fixed[3] as number;
  if ((flags & FLAGS.reserved) !== 0) throw damaged(start, 'it has flags that are unknown');
  if ((flags & FLAGS.extra) !== 0) await take((await take(2)).readUInt16LE(0));
  for (const flag of [FLAGS.name, FLAGS.comment]) {
    if ((flags & flag) === 0) continue;
    let length = 1;
    while (((await take(1))[0] as number) !== 0) {
      if (++length > MAX_TEXT_LENGTH) throw damaged(start, `it has a name of more than ${MAX_TEXT_LENGTH} bytes`);
    }
  }
  if ((flags & FLAGS.headerChecksum) !== 0) await take(2);
}

/** The member that begins here when it is small and whole in what is held; else nothing is taken. */
async function smallMember(feed: ByteFeed): Promise<Buffer | undefined> {
  await feed.hold(SMALL_LENGTH);
  try {
    const { buffer, engine } = inflateWithInfo(feed.peek(), { maxOutputLength: SMALL_LENGTH });
    feed.take(engine.bytesWritten);
    return buffer;
  } catch {
    // Larger, or damaged: the stream finds out which.
    return undefined;
  }
}

/** With `info` it tells how much of its input it used, which its type does not say. */
function inflateWithInfo(
  input: Buffer,
  options: ZlibOptions,
): { readonly buffer: Buffer; readonly engine: { readonly bytesWritten: number } } {
  const result: unknown = inflateRawSync(input, { ...options, info: true, finishFlush: constants.Z_FINISH });
  return result as { buffer: Buffer; engine: { bytesWritten: number } };
}

function damaged(offset: number, why: string, cause?: unknown): PantalaError {
  return new PantalaError('data-loss', `the gzip member at byte ${offset} is damaged: ${why}`, {
    cause,
    details: { offset },
  });
}

function cutOff(offset: number, cause?: unknown): PantalaError {
  return new PantalaError('data-loss', `the gzip member at byte ${offset} is cut off`, { cause, details: { offset } });
}
