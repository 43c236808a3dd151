import { type ByteString, bytesOf, PantalaError, shown } from '@pantala/base';
import { isHole, type TarEntryKind, type TarHeader, type TarPiece } from './entry.ts';
import { BLOCK, encodeHeader, FIELDS, fits, inBlocks, padding, splitName } from './header.ts';
import { formatPax, formatPaxTime, xattrRecord } from './pax.ts';

/** A member to be written. */
export interface TarMember {
  readonly header: TarHeader;
  /** Of a regular file that is not empty: `header.size` bytes in all; holes become zeros, or stay holes (`runs`). */
  readonly content?: () => AsyncIterable<TarPiece> | Iterable<TarPiece>;
  /**
   * Offset and length of each run of data, in pairs and in order: the member is written as a sparse file
   * (GNU.sparse 1.0), and its content has holes between the runs.
   */
  readonly runs?: readonly number[];
}

const TYPES: Readonly<Record<TarEntryKind, string>> = {
  regular: '0',
  hardlink: '1',
  symlink: '2',
  character: '3',
  block: '4',
  directory: '5',
  fifo: '6',
};

/** Zeros that fill blocks, and the two blocks of the end. */
const ZEROS = Buffer.alloc(64 * 1024);

/**
 * A tar of the members, the same bytes for the same members: ustar as Go's archive/tar writes it, with a pax header
 * where a name, a number, a time or an extended attribute needs one.
 *
 * @throws `invalid-argument` when a content does not have the length that its header says
 */
export async function* writeTar(
  members: AsyncIterable<TarMember> | Iterable<TarMember>,
): AsyncGenerator<Uint8Array, void, undefined> {
  for await (const member of members) yield* memberBlocks(member);
  yield ZEROS.subarray(0, 2 * BLOCK);
}

/** One member; a tar is members one after the other and two blocks of zeros. @throws as `writeTar` */
export async function* memberBlocks({ header, content, runs }: TarMember): AsyncGenerator<Uint8Array, void, undefined> {
  if (header.kind !== 'regular') {
    yield headerBlocks(header, 0, undefined);
  } else if (runs === undefined) {
    yield headerBlocks(header, header.size, undefined);
    yield* contentBlocks(header, content, header.size, true);
  } else {
    const map = inBlocks(`${[runs.length / 2, ...runs].join('\n')}\n`);
    const held = runs.reduce((sum, value, index) => (index % 2 === 1 ? sum + value : sum), 0);
    yield headerBlocks(header, map.length + held, header.size);
    yield map;
    yield* contentBlocks(header, content, held, false);
  }
}

async function* contentBlocks(
  header: TarHeader,
  content: TarMember['content'],
  expected: number,
  withHoles: boolean,
): AsyncGenerator<Uint8Array> {
  let length = 0;
  for await (const piece of content?.() ?? []) {
    if (!isHole(piece)) yield piece;
    else if (withHoles) yield* zeros(piece.length);
    else continue;
    length += piece.length;
    if (length > expected) break;
  }
  if (length !== expected) {
    throw new PantalaError(
      'invalid-argument',
      `"${shown(header.path)}" should have ${expected} bytes of data and has ${length > expected ? 'more' : length}`,
    );
  }
  yield ZEROS.subarray(0, padding(expected));
}

function* zeros(length: number): Generator<Uint8Array> {
  for (let left = length; left > 0; left -= ZEROS.length) yield ZEROS.subarray(0, Math.min(left, ZEROS.length));
}

/** Header of a member, behind a pax header where it needs one. @param realSize of a sparse file */
function headerBlocks(header: TarHeader, size: number, realSize: number | undefined): Buffer {
  const { kind, mtime, uid, gid } = header;
  const name = kind === 'directory' ? `${header.path === '' ? '.' : header.path}/` : header.path;
  const linkName = kind === 'symlink' || kind === 'hardlink' ? header.linkTarget : '';
  const records: (readonly [ByteString, ByteString])[] = [];
  const split = splitName(name);
  if (split === undefined && realSize === undefined) records.push(['path', name]);
  if (linkName.length > FIELDS.linkName[1]) records.push(['linkpath', linkName]);
  const numbers = { uid, gid, size };
  for (const [key, value] of Object.entries(numbers))
    if (!fits(value, FIELDS[key as keyof typeof numbers])) records.push([key, String(value)]);
  if (mtime.nanoseconds !== 0 || !fits(mtime.seconds, FIELDS.mtime)) records.push(['mtime', formatPaxTime(mtime)]);
  for (const [xattr, value] of [...header.xattrs].toSorted(([a], [b]) => (a < b ? -1 : 1)))
    records.push(xattrRecord(xattr, value));
  if (realSize !== undefined) {
    records.push(['GNU.sparse.major', '1'], ['GNU.sparse.minor', '0']);
    records.push(['GNU.sparse.name', name], ['GNU.sparse.realsize', String(realSize)]);
  }
  // Readers that convert names must not take bytes for UTF-8 that are none.
  if (records.some(([key, value]) => (key === 'path' || key === 'linkpath') && !isUtf8(value)))
    records.unshift(['hdrcharset', 'BINARY']);
  const fitting = (value: number, key: 'uid' | 'gid' | 'size' | 'mtime') => (fits(value, FIELDS[key]) ? value : 0);
  const block = encodeHeader({
    ...(split ?? { name: name.slice(0, FIELDS.name[1]), prefix: '' }),
    type: TYPES[kind],
    mode: header.mode,
    uid: fitting(uid, 'uid'),
    gid: fitting(gid, 'gid'),
    size: fitting(size, 'size'),
    mtime: fitting(mtime.seconds, 'mtime'),
    linkName: linkName.slice(0, FIELDS.linkName[1]),
    major: header.major,
    minor: header.minor,
  });
  return records.length === 0 ? block : Buffer.concat([paxBlocks(header.path, formatPax(records)), block]);
}

function paxBlocks(path: ByteString, records: ByteString): Buffer {
  const last = path.slice(path.lastIndexOf('/') + 1).replace(/[^\x21-\x7e]/g, '_');
  const header = encodeHeader({
    name: `PaxHeaders.0/${last}`.slice(0, FIELDS.name[1]),
    prefix: '',
    type: 'x',
    mode: 0,
    uid: 0,
    gid: 0,
    size: records.length,
    mtime: 0,
    linkName: '',
    major: 0,
    minor: 0,
  });
  return Buffer.concat([header, inBlocks(records)]);
}

function isUtf8(value: ByteString): boolean {
  const bytes = bytesOf(value);
  return Buffer.from(bytes.toString('utf8'), 'utf8').equals(bytes);
}
