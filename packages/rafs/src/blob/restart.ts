import { constants, inflateRawSync } from 'node:zlib';
import { PantalaError } from '@pantala/base';
import type { RestartPoint } from './restart-point.ts';

/** What of a restart point decoding needs; travels between threads. */
export type Restart = Pick<RestartPoint, 'bits' | 'byte' | 'dictionary'>;

/**
 * Output beyond the wanted that the last bytes of input may still give: the longest match of deflate for each of its
 * bits (RFC 1951), rounded up generously.
 */
const OUTPUT_SLACK = 64 * 1024;

/** CRC and length behind a gzip member (RFC 1952). */
const TRAILER_LENGTH = 8;
const HEADER_LENGTH = 10;
const FLAGS_AT = 3;
const FLAG = { headerCrc: 2, extra: 4, name: 8, comment: 16 } as const;

/**
 * Decodes gzip from the middle on, across the ends of its members.
 *
 * @param stored from the first whole byte on
 * @returns exactly `length` bytes
 * @throws `data-loss`
 */
export function decodeFrom(restart: Restart, stored: Uint8Array, length: number): Uint8Array {
  const output = new Uint8Array(length);
  let filled = 0;
  let rest = stored;
  let prefix = prefixOf(restart);
  let dictionary = restart.dictionary;
  while (filled < length) {
    const member = inflate(prefix, rest, dictionary, length - filled);
    output.set(member.content.subarray(0, length - filled), filled);
    filled += Math.min(member.content.length, length - filled);
    if (filled === length) break;
    if (!member.ended) throw broken(`ends after ${filled} of ${length} bytes`);
    rest = afterGzipHeader(rest.subarray(member.consumed + TRAILER_LENGTH));
    prefix = new Uint8Array();
    dictionary = new Uint8Array();
  }
  return output;
}

/** What node:zlib answers with the option `info`, which its types leave out. */
interface InflateInfo {
  readonly buffer: Buffer;
  /** `bytesWritten`: input that was used. */
  readonly engine: { readonly bytesWritten: number };
}

function inflate(
  prefix: Uint8Array,
  stored: Uint8Array,
  dictionary: Uint8Array,
  length: number,
): { content: Uint8Array; consumed: number; ended: boolean } {
  const input = prefix.length === 0 ? stored : Buffer.concat([prefix, stored]);
  try {
    const answer: unknown = inflateRawSync(input, {
      info: true,
      // Input that breaks off is expected: a restart point ends in the middle of a block.
      finishFlush: constants.Z_SYNC_FLUSH,
      maxOutputLength: length + OUTPUT_SLACK,
      ...(dictionary.length === 0 ? {} : { dictionary }),
    });
    const { buffer, engine } = answer as InflateInfo;
    const consumed = engine.bytesWritten - prefix.length;
    return { content: buffer, consumed, ended: consumed < stored.length };
  } catch (error) {
    throw broken(`is damaged: ${PantalaError.from(error).message}`);
  }
}

function afterGzipHeader(bytes: Uint8Array): Uint8Array {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) throw broken('has no gzip member where the next should begin');
  const flags = bytes[FLAGS_AT] ?? 0;
  let at = HEADER_LENGTH;
  if ((flags & FLAG.extra) !== 0) at += 2 + (bytes[at] ?? 0) + 256 * (bytes[at + 1] ?? 0);
  for (const flag of [FLAG.name, FLAG.comment]) {
    if ((flags & flag) === 0) continue;
    const end = bytes.indexOf(0, at);
    if (end === -1) throw broken('ends in the header of a gzip member');
    at = end + 1;
  }
  if ((flags & FLAG.headerCrc) !== 0) at += 2;
  return bytes.subarray(at);
}

function broken(what: string): PantalaError {
  return new PantalaError('data-loss', `the gzip data from this restart point ${what}`);
}

// A restart point may lie within a byte, and node:zlib knows only whole ones. So blocks without content are put in
// front, as many bits as make the first byte whole (RFC 1951 §3.2.6 and §3.2.7, bits from the low end).

/** An empty block with fixed codes: not the last, type 1, end of block. 10 bits. */
const FIXED = [
  [0b010, 3],
  [0, 7],
] as const;

/**
 * An empty block with codes of its own: 93 bits, an odd number. 257 literals and lengths, one distance, 19 lengths of
 * the code for lengths, of which 18 (zeros) and 1 have one bit each; 138 and 118 zeros, length 1 for the end of block
 * and for the distance; end of block.
 */
const DYNAMIC = [
  [0b100, 3],
  [0, 5],
  [0, 5],
  [15, 4],
  [0, 3],
  [0, 3],
  [1, 3],
  [0, 3],
  [0, 3],
  [0, 3],
  [0, 3],
  [0, 3],
  [0, 3],
  [0, 3],
  [0, 3],
  [0, 3],
  [0, 3],
  [0, 3],
  [0, 3],
  [0, 3],
  [0, 3],
  [1, 3],
  [0, 3],
  [1, 1],
  [138 - 11, 7],
  [1, 1],
  [118 - 11, 7],
  [0, 1],
  [0, 1],
  [0, 1],
] as const;

/** Whole bytes that decode to nothing and end with the bits of the restart point. */
function prefixOf({ bits, byte }: Restart): Uint8Array {
  if (bits === 0) return new Uint8Array();
  const fields: (readonly [number, number])[] = bits % 2 === 0 ? [] : [...DYNAMIC];
  const lengthOf = () => fields.reduce((sum, [, width]) => sum + width, 0);
  while ((lengthOf() + bits) % 8 !== 0) fields.push(...FIXED);
  fields.push([byte >> (8 - bits), bits]);
  const bytes = new Uint8Array(lengthOf() / 8);
  let at = 0;
  for (const [value, width] of fields) {
    for (let bit = 0; bit < width; bit++, at++) {
      bytes[at >> 3] = (bytes[at >> 3] as number) | (((value >> bit) & 1) << (at & 7));
    }
  }
  return bytes;
}
