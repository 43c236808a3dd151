import { malformed } from '../malformed.ts';

/** Bytes of the tar header behind a section. */
export const SECTION_HEADER_LENGTH = 512;

/** What a section of a blob is called in the tar header behind it and in the table of contents. */
export const SECTIONS = {
  data: 'image.blob',
  chunkInformation: 'blob.meta',
  /** Only in the table of contents; it lies at the end of the section `blob.meta`. */
  metaHeader: 'blob.meta.header',
  digests: 'blob.digest',
  bootstrap: 'image.boot',
  /** Only in its tar header. */
  toc: 'rafs.blob.toc',
} as const;

const NAME = { offset: 0, length: 100 };
const SIZE = { offset: 124, digits: 11 };
const MTIME = { offset: 136, digits: 11 };
const CHECKSUM = { offset: 148, length: 8, digits: 6 };
const TYPE = { offset: 156, regular: '0' };
const MAGIC = { offset: 257, text: 'ustar  \0' };

export interface SectionHeader {
  readonly name: string;
  /** Bytes of the section, which end where the header begins. */
  readonly size: number;
}

/** Blobs are tars with each header behind its content and no padding: so a writer can stream. GNU's tar format. */
export function encodeSectionHeader({ name, size }: SectionHeader): Uint8Array {
  const bytes = Buffer.alloc(SECTION_HEADER_LENGTH);
  bytes.write(name, NAME.offset, 'latin1');
  bytes.write(size.toString(8).padStart(SIZE.digits, '0'), SIZE.offset, 'latin1');
  bytes.write('0'.repeat(MTIME.digits), MTIME.offset, 'latin1');
  bytes.write(TYPE.regular, TYPE.offset, 'latin1');
  bytes.write(MAGIC.text, MAGIC.offset, 'latin1');
  bytes.write(`${checksumOf(bytes).toString(8).padStart(CHECKSUM.digits, '0')}\0 `, CHECKSUM.offset, 'latin1');
  return bytes;
}

/** Whether 512 bytes are a header of a section; random data does not look like one. */
export function isSectionHeader(bytes: Uint8Array): boolean {
  return textOf(bytes, MAGIC.offset, MAGIC.text.length) === MAGIC.text;
}

/**
 * @param offset of the header in the file, for errors
 * @throws `data-loss`
 */
export function decodeSectionHeader(bytes: Uint8Array, offset: number, file: string): SectionHeader {
  const refuse = (field: string, at: number, reason: string) => malformed(file, field, offset + at, reason);
  if (!isSectionHeader(bytes)) throw refuse('magic of the section', MAGIC.offset, 'is not that of a GNU tar');
  const checksum = octal(bytes, CHECKSUM.offset, CHECKSUM.length);
  if (checksum !== checksumOf(bytes)) throw refuse('checksum of the section', CHECKSUM.offset, 'is wrong');
  const size = octal(bytes, SIZE.offset, SIZE.digits + 1);
  if (size === undefined) throw refuse('size of the section', SIZE.offset, 'is no octal number');
  if (size > offset)
    throw refuse('size of the section', SIZE.offset, `is ${size}, more than the ${offset} bytes before it`);
  return { name: textOf(bytes, NAME.offset, NAME.length).replace(/\0.*$/s, ''), size };
}

function textOf(bytes: Uint8Array, offset: number, length: number): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset + offset, length).toString('latin1');
}

function octal(bytes: Uint8Array, offset: number, length: number): number | undefined {
  const digits = /^ *([0-7]+)[ \0]*$/.exec(textOf(bytes, offset, length));
  return digits === null ? undefined : Number.parseInt(digits[1] as string, 8);
}

/** The sum of all bytes with the checksum's own taken as spaces (POSIX ustar). */
function checksumOf(bytes: Uint8Array): number {
  let sum = CHECKSUM.length * 0x20;
  for (let at = 0; at < SECTION_HEADER_LENGTH; at++) {
    if (at < CHECKSUM.offset || at >= CHECKSUM.offset + CHECKSUM.length) sum += bytes[at] as number;
  }
  return sum;
}
