import { type BigIntStats, closeSync, constants, lstatSync, openSync, readdirSync, readlinkSync } from 'node:fs';
import { resolve } from 'node:path';
import { type ByteString, byteString, bytesOf, PantalaError, shown, throwIfAborted } from '@pantala/base';
import { dataExtents, getXattr, listXattrs } from '@pantala/linux';
import { type Attributes, type Chunk, type Directory, NO_XATTRS, type Node } from '@pantala/rafs';
import { chunkList } from './blob-builder.ts';
import type { FileOnDisk } from './file-on-disk.ts';

/** A regular file of the tree, and the list in which its chunks will be. */
export interface SourceFile extends FileOnDisk {
  readonly chunks: Chunk[];
}

export interface DirectorySource {
  readonly root: Directory;
  /** Of the directory itself: paths of files go on behind it, with a slash. */
  readonly place: ByteString;
  /** Each once, in the order of the tree. */
  readonly files: readonly SourceFile[];
}

/** Entries of one tree; each takes a few hundred bytes. As many as a tar may have. */
export const MAX_DIRECTORY_ENTRIES = 4_000_000;

/** Entries between two looks at the signal, when others get their turn. */
const ENTRIES_PER_TURN = 500;

/** What has been found so far. */
interface Found {
  readonly files: SourceFile[];
  /** Files with several names, by device and inode. */
  readonly links: Map<string, Node>;
  readonly chunkSize: number;
}

interface Open {
  readonly directory: Directory;
  readonly place: ByteString;
}

/**
 * Reads a local tree with everything that an image keeps: owners, modes, times to the nanosecond, extended attributes,
 * devices, hard links, holes. Names are bytes; file systems mounted below are part of it. File contents are left for
 * later.
 *
 * @throws `not-found`, `permission-denied`, `invalid-argument` when it is no directory, the reason of the signal
 */
export async function readDirectorySource(
  directory: string,
  chunkSize: number,
  signal?: AbortSignal,
): Promise<DirectorySource> {
  const top = byteString(Buffer.from(resolve(directory)));
  const base = top === '/' ? '' : top;
  const stats = lstatSync(bytesOf(top), { bigint: true });
  if (!stats.isDirectory()) throw new PantalaError('invalid-argument', `${directory} is no directory`);
  const root: Directory = { kind: 'directory', attributes: attributesOf(stats, top), entries: new Map() };
  const found: Found = { files: [], links: new Map(), chunkSize };
  const open: Open[] = [{ directory: root, place: base }];
  let entries = 0;
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const inner: Open[] = [];
    for (const name of sortedNames(next.place)) {
      if (++entries > MAX_DIRECTORY_ENTRIES) {
        throw new PantalaError('resource-exhausted', `${directory} has more than ${MAX_DIRECTORY_ENTRIES} entries`);
      }
      if (entries % ENTRIES_PER_TURN === 0) {
        throwIfAborted(signal);
        await new Promise(setImmediate);
      }
      const place = `${next.place}/${name}`;
      const node = nodeAt(place, found);
      next.directory.entries.set(name, node);
      if (node.kind === 'directory') inner.push({ directory: node, place });
    }
    open.push(...inner.reverse());
  }
  return { root, place: base, files: found.files };
}

/** In the order of their bytes: so that equal trees give equal images. */
function sortedNames(place: ByteString): ByteString[] {
  const names = readdirSync(bytesOf(place === '' ? '/' : place), { encoding: 'buffer' });
  return names.map(byteString).sort();
}

function nodeAt(place: ByteString, found: Found): Node {
  const stats = lstatSync(bytesOf(place), { bigint: true });
  const linked = stats.nlink > 1n && !stats.isDirectory() ? `${stats.dev}:${stats.ino}` : undefined;
  const known = linked === undefined ? undefined : found.links.get(linked);
  if (known !== undefined) return known;
  const node = newNode(stats, place, found);
  if (linked !== undefined) found.links.set(linked, node);
  return node;
}

function newNode(stats: BigIntStats, place: ByteString, found: Found): Node {
  const attributes = attributesOf(stats, place);
  if (stats.isDirectory()) return { kind: 'directory', attributes, entries: new Map() };
  if (stats.isSymbolicLink()) {
    return { kind: 'symlink', attributes, target: byteString(readlinkSync(bytesOf(place), { encoding: 'buffer' })) };
  }
  if (stats.isFile()) {
    const size = Number(stats.size);
    const chunks = chunkList(size, found.chunkSize);
    found.files.push({ path: place, size, chunks, ...sparse(place, size, stats) });
    return { kind: 'regular', attributes, size, content: chunks };
  }
  if (stats.isFIFO()) return { kind: 'fifo', attributes };
  if (stats.isSocket()) return { kind: 'socket', attributes };
  if (stats.isCharacterDevice() || stats.isBlockDevice()) {
    return { kind: stats.isBlockDevice() ? 'block' : 'character', attributes, ...deviceOf(stats.rdev) };
  }
  throw new PantalaError('unimplemented', `${shown(place)} is of a kind that images do not have`);
}

/** Only of files that take less room than they are long: for the others the question would cost more than it saves. */
function sparse(place: ByteString, size: number, stats: BigIntStats): Pick<FileOnDisk, 'extents'> {
  const SECTOR = 512n;
  if (stats.blocks * SECTOR >= stats.size) return {};
  const descriptor = openSync(bytesOf(place), constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    return { extents: [...dataExtents(descriptor, size)] };
  } finally {
    closeSync(descriptor);
  }
}

/** gnu_dev_major and gnu_dev_minor of glibc and musl. */
function deviceOf(device: bigint): { readonly major: number; readonly minor: number } {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xffff_f000n);
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffff_ff00n);
  return { major: Number(major), minor: Number(minor) };
}

const NANOSECONDS = 1_000_000_000n;

function attributesOf(stats: BigIntStats, place: ByteString): Attributes {
  const { mtimeNs } = stats;
  const nanoseconds = ((mtimeNs % NANOSECONDS) + NANOSECONDS) % NANOSECONDS;
  return {
    mode: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    mtime: { seconds: Number((mtimeNs - nanoseconds) / NANOSECONDS), nanoseconds: Number(nanoseconds) },
    xattrs: xattrsOf(bytesOf(place)),
  };
}

function xattrsOf(path: Buffer): ReadonlyMap<ByteString, Uint8Array> {
  const names = listXattrs(path);
  if (names.length === 0) return NO_XATTRS;
  const xattrs = new Map<ByteString, Uint8Array>();
  for (const name of names) {
    const value = getXattr(path, name);
    if (value !== undefined) xattrs.set(byteString(name), value);
  }
  return xattrs;
}
