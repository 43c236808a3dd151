import type { ByteString } from '@pantala/base';
import { DIRENT_LENGTH, MAX_NAME_LENGTH } from './format.ts';
import type { BootstrapReader } from './reader.ts';
import type { Refuse } from './xattrs.ts';

/** Offsets of the fields of a directory's entry. */
export const DIRENT = { nid: 0, nameoff: 8, file_type: 10 } as const;

/** Takes an entry; `offset` is where it stands in the file, for what is wrong with it. */
export type EachEntry = (name: ByteString, nid: number, fileType: number, offset: number) => void;

/**
 * The entries of one block, which has `length` bytes from `offset`: an array of entries, then their names. `after` is
 * the last name of the block before, since names ascend through the whole directory: the kernel looks them up by
 * bisection.
 *
 * @returns the last name
 */
export function readBlock(
  reader: BootstrapReader,
  offset: number,
  length: number,
  blockSize: number,
  after: ByteString,
  refuse: Refuse,
  each: EachEntry,
): ByteString {
  if (length < DIRENT_LENGTH + 1) refuse('dirents', offset, `have ${length} bytes, too few for an entry`);
  const first = reader.u16(offset + DIRENT.nameoff);
  if (first === 0 || first % DIRENT_LENGTH !== 0 || first >= length) {
    refuse('nameoff', offset + DIRENT.nameoff, `is ${first}: not behind a whole number of entries in the block`);
  }
  const count = first / DIRENT_LENGTH;
  let before = after;
  let begin = first;
  for (let index = 0; index < count; index++) {
    const entryAt = offset + index * DIRENT_LENGTH;
    const last = index === count - 1;
    const nextAt = entryAt + DIRENT_LENGTH + DIRENT.nameoff;
    let end = last ? length : reader.u16(nextAt);
    if (end > length || end <= begin) {
      refuse('nameoff', last ? entryAt + DIRENT.nameoff : nextAt, `is ${end}: names lie one behind the other`);
    }
    if (last && length === blockSize) end = endOfLast(reader, offset, begin, end);
    const name = reader.string(offset + begin, offset + end);
    if (name.length === 0 || name.length > MAX_NAME_LENGTH) {
      refuse('name', offset + begin, `has ${name.length} bytes: names have 1 to ${MAX_NAME_LENGTH}`);
    }
    if (name.includes('/') || name.includes('\0')) refuse('name', offset + begin, 'holds a slash or a NUL byte');
    if (name <= before) refuse('name', offset + begin, 'does not follow the name before it in the order of bytes');
    const nid = reader.u64(entryAt);
    if (nid === 0) refuse('nid', entryAt, 'is 0, which directories cannot show');
    each(name, nid, reader.u8(entryAt + DIRENT.file_type), entryAt);
    before = name;
    begin = end;
  }
  return before;
}

/** What follows the last name of a full block is zeros; others end with it. */
function endOfLast(reader: BootstrapReader, offset: number, begin: number, end: number): number {
  let last = end;
  while (last > begin && reader.u8(offset + last - 1) === 0) last--;
  return last;
}

/**
 * Bytes of the block that begins with the name at `from`, and the position behind its last name. A name that does
 * not fit into what is left of a block begins the next one.
 */
export function packBlock(
  names: readonly ByteString[],
  from: number,
  blockSize: number,
): { readonly length: number; readonly to: number } {
  let length = 0;
  let to = from;
  for (; to < names.length; to++) {
    const next = length + DIRENT_LENGTH + (names[to] as ByteString).length;
    if (next > blockSize) break;
    length = next;
  }
  return { length, to };
}

/** Bytes of a directory's data: whole blocks, but the last. */
export function directoryLength(names: readonly ByteString[], blockSize: number): number {
  let blocks = 0;
  for (let from = 0; ; blocks++) {
    const { length, to } = packBlock(names, from, blockSize);
    if (to === names.length) return blocks * blockSize + length;
    from = to;
  }
}
