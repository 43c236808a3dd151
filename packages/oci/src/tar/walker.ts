import { type ByteString, PantalaError, shown, throwIfAborted } from '@pantala/base';
import { ByteFeed } from '../compression/byte-feed.ts';
import type { TarEntry, TarEntryKind, TarPiece, TarTime } from './entry.ts';
import { cutOff, malformed } from './errors.ts';
import { BLOCK, FIELDS, HeaderBlock, padding } from './header.ts';
import {
  MAX_EXTENDED_HEADERS,
  MAX_EXTENDED_LENGTH,
  MAX_GLOBAL_RECORDS,
  MAX_MEMBER_LENGTH,
  MAX_PATH_LENGTH,
  MAX_TAR_ENTRIES,
} from './limits.ts';
import { memberPath } from './member-name.ts';
import { type PaxRecords, parsePax, paxNumber, paxTime, paxXattr } from './pax.ts';
import { leadingSparseMap, olderSparseMap, paxSparse, type SparseMap } from './sparse.ts';

export interface WalkOptions {
  /** Members at most. Default MAX_TAR_ENTRIES. */
  readonly maxEntries?: number;
  readonly signal?: AbortSignal;
}

const NO_XATTRS: ReadonlyMap<ByteString, Uint8Array> = new Map();
const MAX_ID = 0xffff_ffff;
/** Types of members whose header says everything, whatever size it gives. */
const KINDS: Readonly<Record<string, TarEntryKind>> = {
  '0': 'regular',
  '\0': 'regular',
  // Contiguous: a hint for a disk of 1980.
  '7': 'regular',
  S: 'regular',
  '1': 'hardlink',
  '2': 'symlink',
  '3': 'character',
  '4': 'block',
  '5': 'directory',
  // A directory with a list of what was in it, of GNU's incremental backups.
  D: 'directory',
  '6': 'fifo',
};

/**
 * The members of a tar in their order, straight from a stream: nothing is extracted, nothing but the current piece is
 * in memory, and nothing is copied but what lies across two pieces. Reads v7, ustar, GNU, star and pax
 * (POSIX.1-2024 pax; GNU tar's manual, "Basic Tar Format").
 *
 * A hard link is reported as it comes, even before what it names. The archive ends at the first block of zeros, as
 * GNU tar has it; what follows is read and dropped so that whoever digests the source sees all of it.
 *
 * @param source the archive, decompressed; see `decompressed`
 * @throws `invalid-argument` with the offset of what is wrong, `data-loss` when it is cut off, and what the source throws
 */
export async function* walkTar(
  source: AsyncIterable<Uint8Array>,
  options: WalkOptions = {},
): AsyncGenerator<TarEntry, void, undefined> {
  const walker = new Walker(new ByteFeed(source), options);
  try {
    for (;;) {
      const entry = await walker.next();
      if (entry === undefined) return;
      yield entry;
    }
  } finally {
    await walker.close();
  }
}

/** What extended headers said for the member that comes next. */
interface Extended {
  readonly pax: PaxRecords;
  readonly gnuName: ByteString | undefined;
  readonly gnuLink: ByteString | undefined;
}

class Walker {
  readonly #feed: ByteFeed;
  readonly #signal: AbortSignal | undefined;
  readonly #maxEntries: number;
  readonly #globals = new Map<ByteString, ByteString>();
  #entries = 0;
  /** Bytes of the current member that were not read yet, and those that fill its last block. */
  #left = 0;
  #filling = 0;

  constructor(feed: ByteFeed, options: WalkOptions) {
    this.#feed = feed;
    this.#signal = options.signal;
    this.#maxEntries = options.maxEntries ?? MAX_TAR_ENTRIES;
  }

  async next(): Promise<TarEntry | undefined> {
    throwIfAborted(this.#signal);
    await this.#skipRest();
    let pax: PaxRecords = [];
    let gnuName: ByteString | undefined;
    let gnuLink: ByteString | undefined;
    for (let extended = 0; ; extended++) {
      const header = await this.#header();
      if (header === undefined) {
        if (extended > 0) throw cutOff(this.#feed.position, 'an extended header has no member');
        await this.#feed.drain();
        return undefined;
      }
      if (extended > MAX_EXTENDED_HEADERS)
        throw malformed(header.offset, `more than ${MAX_EXTENDED_HEADERS} extended headers in a row`);
      const { type } = header;
      if (type === 'x' || type === 'X') pax = parsePax(await this.#extended(header), header.offset);
      else if (type === 'g') this.#addGlobals(parsePax(await this.#extended(header), header.offset), header.offset);
      else if (type === 'L') gnuName = upToNul(await this.#extended(header));
      else if (type === 'K') gnuLink = upToNul(await this.#extended(header));
      else if (type === 'V') await this.#dropBody(header);
      else if (type === 'M') throw malformed(header.offset, 'it goes on from another volume');
      else return await this.#entry(header, { pax: this.#withGlobals(pax), gnuName, gnuLink });
    }
  }

  close(): Promise<void> {
    return this.#feed.close();
  }

  async #header(): Promise<HeaderBlock | undefined> {
    const feed = this.#feed;
    const { position } = feed;
    if (!(await feed.hold(BLOCK))) {
      if (feed.held > 0) throw cutOff(position, `a header has ${feed.held} bytes instead of ${BLOCK}`);
      return undefined;
    }
    // It is looked at again when more has been read.
    const header = new HeaderBlock(Buffer.from(feed.take(BLOCK)), position);
    if (header.bytes[0] === 0 && header.isZero) return undefined;
    if (!header.checksumHolds)
      throw malformed(position, position === 0 ? 'this is no tar' : "a header's checksum is wrong");
    return header;
  }

  /** The body of a header that only says something about the next. */
  async #extended(header: HeaderBlock): Promise<Buffer> {
    const size = header.number(FIELDS.size, 'size');
    if (size < 0 || size > MAX_EXTENDED_LENGTH)
      throw malformed(header.offset, `an extended header has ${size} bytes; at most ${MAX_EXTENDED_LENGTH}`);
    const feed = this.#feed;
    if (!(await feed.hold(size + padding(size)))) throw cutOff(feed.position, 'an extended header goes on');
    return feed.take(size + padding(size)).subarray(0, size);
  }

  async #dropBody(header: HeaderBlock): Promise<void> {
    this.#left = contentLength(header.number(FIELDS.size, 'size'), header.offset);
    this.#filling = padding(this.#left);
    await this.#skipRest();
  }

  #addGlobals(records: PaxRecords, offset: number): void {
    for (const [name, value] of records) {
      if (value === '') this.#globals.delete(name);
      else this.#globals.set(name, value);
    }
    if (this.#globals.size > MAX_GLOBAL_RECORDS)
      throw malformed(offset, `global headers with more than ${MAX_GLOBAL_RECORDS} records`);
  }

  /** A member's own records stand behind the global ones, so they win; an empty one takes a global one back. */
  #withGlobals(records: PaxRecords): PaxRecords {
    return this.#globals.size === 0 ? records : [...this.#globals, ...records];
  }

  async #entry(header: HeaderBlock, extended: Extended): Promise<TarEntry> {
    const { offset } = header;
    if (++this.#entries > this.#maxEntries) throw malformed(offset, `more than ${this.#maxEntries} members`);
    const facts = readFacts(header, extended);
    const name = facts.sparse?.name ?? facts.name;
    // Before POSIX a directory was a file whose name ends with a slash.
    const kind =
      facts.kind === 'regular' && name.endsWith('/') && facts.sparse === undefined && header.type !== 'S'
        ? 'directory'
        : facts.kind;
    const holds = kind === 'regular' || header.type === 'D' || (kind === 'directory' && facts.kind === 'regular');
    this.#left = holds ? facts.size : 0;
    this.#filling = padding(this.#left);
    const map = kind === 'regular' ? await this.#sparseMap(header, facts) : undefined;
    const size = kind === 'regular' ? contentLength(map?.size ?? facts.size, offset) : 0;
    const isDevice = kind === 'character' || kind === 'block';
    let read = false;
    const begun = this.#entries;
    return {
      kind,
      path: memberPath(name),
      mode: header.number(FIELDS.mode, 'mode') & 0o7777,
      uid: identity(facts.uid, 'uid', offset),
      gid: identity(facts.gid, 'gid', offset),
      mtime: facts.mtime,
      size,
      linkTarget: linkTarget(kind, facts.linkName, offset),
      major: isDevice ? deviceNumber(header, 'major') : 0,
      minor: isDevice ? deviceNumber(header, 'minor') : 0,
      xattrs: facts.xattrs,
      offset,
      contentOffset: this.#feed.position,
      sparse: map !== undefined,
      content: () => {
        if (read || begun !== this.#entries)
          throw new PantalaError('failed-precondition', `the content of "${shown(name)}" was read or skipped already`);
        read = true;
        return map === undefined ? this.#data() : this.#sparse(map);
      },
    };
  }

  async #sparseMap(header: HeaderBlock, facts: Facts): Promise<SparseMap | undefined> {
    let map = facts.sparse?.map;
    if (header.type === 'S') map = await olderSparseMap(header, this.#feed);
    else if (facts.sparse !== undefined && map === undefined) {
      const leading = await leadingSparseMap(this.#feed, facts.sparse.size, this.#left);
      this.#left -= leading.taken;
      map = leading.map;
    }
    if (map !== undefined && map.held !== this.#left)
      throw malformed(header.offset, `a sparse file has ${this.#left} bytes of data and a map of ${map.held}`);
    return map;
  }

  /** What is left of the member as it comes. */
  async *#data(): AsyncGenerator<TarPiece> {
    while (this.#left > 0) yield await this.#piece(this.#left);
  }

  async *#sparse(map: SparseMap): AsyncGenerator<TarPiece> {
    let at = 0;
    for (let run = 0; run < map.runs.length; run += 2) {
      const start = map.runs[run] as number;
      if (start > at) yield { hole: true, length: start - at };
      at = start + (map.runs[run + 1] as number);
      for (let left = at - start; left > 0; ) {
        const piece = await this.#piece(left);
        left -= piece.length;
        yield piece;
      }
    }
    if (at < map.size) yield { hole: true, length: map.size - at };
  }

  async #piece(most: number): Promise<Uint8Array> {
    throwIfAborted(this.#signal);
    const piece = await this.#feed.some(most);
    if (piece === undefined) throw cutOff(this.#feed.position, `a member lacks ${this.#left} bytes`);
    this.#left -= piece.length;
    return piece;
  }

  async #skipRest(): Promise<void> {
    if (this.#left > 0 && !(await this.#feed.skip(this.#left)))
      throw cutOff(this.#feed.position, 'a member lacks bytes');
    // Nobody misses what only fills a block at the very end.
    if (this.#filling > 0) await this.#feed.skip(this.#filling);
    this.#left = 0;
    this.#filling = 0;
  }
}

/** What header and extended headers say together. */
interface Facts {
  readonly kind: TarEntryKind;
  readonly name: ByteString;
  readonly linkName: ByteString;
  /** Bytes in the archive. */
  readonly size: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: TarTime;
  readonly xattrs: ReadonlyMap<ByteString, Uint8Array>;
  readonly sparse: ReturnType<typeof paxSparse>;
}

function readFacts(header: HeaderBlock, { pax, gnuName, gnuLink }: Extended): Facts {
  const { offset } = header;
  let name: ByteString | undefined;
  let linkName: ByteString | undefined;
  let size: number | undefined;
  let uid: number | undefined;
  let gid: number | undefined;
  let mtime: TarTime | undefined;
  let xattrs: Map<ByteString, Uint8Array> | undefined;
  for (const [key, value] of pax) {
    const given = value !== '';
    if (key === 'path') name = given ? value : undefined;
    else if (key === 'linkpath') linkName = given ? value : undefined;
    else if (key === 'size') size = given ? paxNumber(value, key, offset) : undefined;
    else if (key === 'uid') uid = given ? paxNumber(value, key, offset) : undefined;
    else if (key === 'gid') gid = given ? paxNumber(value, key, offset) : undefined;
    else if (key === 'mtime') mtime = given ? paxTime(value, key, offset) : undefined;
    else {
      const xattr = paxXattr(key, value, offset);
      if (xattr === undefined) continue;
      xattrs ??= new Map();
      // The form that needs no decoding is the more exact one where a writer gave both.
      if (xattr.exact || !xattrs.has(xattr.name)) xattrs.set(xattr.name, xattr.value);
    }
  }
  return {
    // POSIX: a type that a reader does not know is a regular file.
    kind: KINDS[header.type] ?? 'regular',
    name: name ?? gnuName ?? header.name,
    linkName: linkName ?? gnuLink ?? header.text(FIELDS.linkName),
    size: contentLength(size ?? header.number(FIELDS.size, 'size'), offset),
    uid: uid ?? header.number(FIELDS.uid, 'uid'),
    gid: gid ?? header.number(FIELDS.gid, 'gid'),
    mtime: mtime ?? { seconds: header.number(FIELDS.mtime, 'mtime'), nanoseconds: 0 },
    xattrs: xattrs ?? NO_XATTRS,
    sparse: pax.length === 0 ? undefined : paxSparse(pax, offset),
  };
}

function linkTarget(kind: TarEntryKind, linkName: ByteString, offset: number): ByteString {
  if (kind === 'hardlink') return memberPath(linkName);
  if (kind !== 'symlink') return '';
  if (linkName === '' || linkName.length > MAX_PATH_LENGTH || linkName.includes('\0'))
    throw malformed(offset, `a symbolic link names "${shown(linkName.slice(0, 200))}", which no link can hold`);
  return linkName;
}

function upToNul(bytes: Buffer): ByteString {
  const end = bytes.indexOf(0);
  return bytes.toString('latin1', 0, end < 0 ? bytes.length : end);
}

function contentLength(size: number, offset: number): number {
  if (size < 0 || size > MAX_MEMBER_LENGTH)
    throw malformed(offset, `a member has ${size} bytes; at most ${MAX_MEMBER_LENGTH}`);
  return size;
}

function identity(id: number, name: string, offset: number): number {
  if (id < 0 || id > MAX_ID) throw malformed(offset, `${name} is ${id}; it must be between 0 and ${MAX_ID}`);
  return id;
}

function deviceNumber(header: HeaderBlock, name: 'major' | 'minor'): number {
  const value = header.number(FIELDS[name], name);
  const most = name === 'major' ? 0xfff : 0xf_ffff;
  if (value < 0 || value > most)
    throw malformed(header.offset, `a device has the ${name} number ${value}; at most ${most}`);
  return value;
}
