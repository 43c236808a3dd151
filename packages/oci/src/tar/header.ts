import { type ByteString, bytesOf } from '@pantala/base';
import { malformed } from './errors.ts';

/** A tar is made of blocks of this length. */
export const BLOCK = 512;

/** Which of the older formats a header is in: they differ in what lies behind the link's target. */
export type HeaderFormat = 'v7' | 'ustar' | 'gnu' | 'star';

/** Fields of a header block, where they lie and how long they are (POSIX ustar, GNU tar's manual, star(5)). */
export const FIELDS = {
  name: [0, 100],
  mode: [100, 8],
  uid: [108, 8],
  gid: [116, 8],
  size: [124, 12],
  mtime: [136, 12],
  checksum: [148, 8],
  type: [156, 1],
  linkName: [157, 100],
  magic: [257, 8],
  major: [329, 8],
  minor: [337, 8],
  prefix: [345, 155],
  starPrefix: [345, 131],
  starMagic: [508, 4],
} as const;

export type Field = readonly [offset: number, length: number];

const ZERO = 0x30;
const SEVEN = 0x37;
const SPACE = 0x20;

/** One header block as it stands; what extended headers say is not in it. */
export class HeaderBlock {
  readonly bytes: Buffer;
  /** Where it lies in the archive. */
  readonly offset: number;

  constructor(bytes: Buffer, offset: number) {
    this.bytes = bytes;
    this.offset = offset;
  }

  get type(): string {
    return String.fromCharCode(this.bytes[FIELDS.type[0]] as number);
  }

  get format(): HeaderFormat {
    const magic = this.bytes.toString('latin1', 257, 265);
    if (magic === 'ustar  \0') return 'gnu';
    if (!magic.startsWith('ustar')) return 'v7';
    return this.bytes.toString('latin1', 508, 512) === 'tar\0' ? 'star' : 'ustar';
  }

  get isZero(): boolean {
    const { bytes } = this;
    for (let at = 0; at < BLOCK; at++) if (bytes[at] !== 0) return false;
    return true;
  }

  /** The sum of all bytes with the field itself as spaces; old tars summed signed bytes. */
  get checksumHolds(): boolean {
    const { bytes } = this;
    const said = octal(bytes, 148, 156);
    if (said === undefined) return false;
    let sum = 8 * SPACE;
    let high = 0;
    for (let at = 0; at < 148; at++) {
      const byte = bytes[at] as number;
      sum += byte;
      if (byte > 127) high++;
    }
    for (let at = 156; at < BLOCK; at++) {
      const byte = bytes[at] as number;
      sum += byte;
      if (byte > 127) high++;
    }
    return said === sum || said === sum - 256 * high;
  }

  /** Up to the first NUL. */
  text([offset, length]: Field): ByteString {
    const { bytes } = this;
    let end = offset;
    while (end < offset + length && bytes[end] !== 0) end++;
    return bytes.toString('latin1', offset, end);
  }

  /** Name with its prefix. */
  get name(): ByteString {
    const name = this.text(FIELDS.name);
    const { format } = this;
    if (format !== 'ustar' && format !== 'star') return name;
    const prefix = this.text(format === 'ustar' ? FIELDS.prefix : FIELDS.starPrefix);
    return prefix === '' ? name : `${prefix}/${name}`;
  }

  /** Octal digits, or GNU's base 256. @throws `invalid-argument` */
  number(field: Field, name: string): number {
    const [offset, length] = field;
    const value = numberAt(this.bytes, offset, length);
    if (value === undefined) throw malformed(this.offset + offset, `the field "${name}" holds no number`);
    return value;
  }
}

/** The number in a field; 0 when it is empty, undefined when it holds none or one that is not exact. */
export function numberAt(bytes: Buffer, offset: number, length: number): number | undefined {
  const first = bytes[offset] as number;
  if ((first & 0x80) === 0) return octal(bytes, offset, offset + length);
  // Two's complement without the first bit, which only tells base 256 from digits.
  let value = (first & 0x40) === 0 ? first & 0x3f : (first & 0x3f) - 0x40;
  for (let at = offset + 1; at < offset + length; at++) value = value * 256 + (bytes[at] as number);
  return Number.isSafeInteger(value) ? value : undefined;
}

/** Spaces, octal digits, then NULs or spaces: 0 for none. Some tars wrote a minus before them. */
function octal(bytes: Buffer, start: number, end: number): number | undefined {
  let at = start;
  while (at < end && bytes[at] === SPACE) at++;
  const negative = bytes[at] === 0x2d;
  if (negative) at++;
  let value = 0;
  for (; at < end; at++) {
    const digit = bytes[at] as number;
    if (digit < ZERO || digit > SEVEN) break;
    value = value * 8 + digit - ZERO;
  }
  // What stands behind the first NUL is no part of the field.
  while (at < end && bytes[at] === SPACE) at++;
  if (at < end && bytes[at] !== 0) return undefined;
  return negative ? -value : value;
}

/** A header block in the form that POSIX ustar and Go's archive/tar write. Fields must fit: see `fits`. */
export function encodeHeader(header: {
  readonly name: ByteString;
  readonly prefix: ByteString;
  readonly type: string;
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly size: number;
  readonly mtime: number;
  readonly linkName: ByteString;
  readonly major: number;
  readonly minor: number;
}): Buffer {
  const block = Buffer.alloc(BLOCK);
  const put = (field: Field, value: ByteString): void => void block.write(value, field[0], field[1], 'latin1');
  const digits = (field: Field, value: number): void =>
    put(field, `${value.toString(8).padStart(field[1] - 1, '0')}\0`);
  put(FIELDS.name, header.name);
  digits(FIELDS.mode, header.mode);
  digits(FIELDS.uid, header.uid);
  digits(FIELDS.gid, header.gid);
  digits(FIELDS.size, header.size);
  digits(FIELDS.mtime, header.mtime);
  put(FIELDS.type, header.type);
  put(FIELDS.linkName, header.linkName);
  put(FIELDS.magic, 'ustar\x0000');
  digits(FIELDS.major, header.major);
  digits(FIELDS.minor, header.minor);
  put(FIELDS.prefix, header.prefix);
  put(FIELDS.checksum, ' '.repeat(8));
  let sum = 0;
  for (const byte of block) sum += byte;
  put(FIELDS.checksum, `${sum.toString(8).padStart(6, '0')}\0 `);
  return block;
}

/** Whether a number has room as octal digits in a field of this length. */
export function fits(value: number, [, length]: Field): boolean {
  return Number.isInteger(value) && value >= 0 && value < 8 ** (length - 1);
}

/** A name in the fields name (100 bytes) and prefix (155 bytes), cut at a slash; undefined when there is no such cut. */
export function splitName(name: ByteString): { readonly name: ByteString; readonly prefix: ByteString } | undefined {
  if (name.length <= FIELDS.name[1]) return { name, prefix: '' };
  const last = Math.min(name.length - 2, FIELDS.prefix[1]);
  const cut = name.lastIndexOf('/', last);
  if (cut <= 0 || name.length - cut - 1 > FIELDS.name[1]) return undefined;
  return { name: name.slice(cut + 1), prefix: name.slice(0, cut) };
}

/** NULs that fill the last block of `length` bytes. */
export function padding(length: number): number {
  return (BLOCK - (length % BLOCK)) % BLOCK;
}

/** The bytes of a text in blocks, filled with NULs. */
export function inBlocks(text: ByteString): Buffer {
  const bytes = bytesOf(text);
  return Buffer.concat([bytes, Buffer.alloc(padding(bytes.length))]);
}
