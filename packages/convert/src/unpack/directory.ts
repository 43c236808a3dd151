import {
  chmodSync,
  closeSync,
  constants,
  ftruncateSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  symlinkSync,
  writeSync,
} from 'node:fs';
import { resolve } from 'node:path';
import { type ByteString, bytesOf, PantalaError, shown, throwIfAborted } from '@pantala/base';
import { makeNode, setTimes, setXattr } from '@pantala/linux';
import type { Device, Directory, Node, RegularFile, Special, Timestamp } from '@pantala/rafs';
import { makeFolder } from '../build/folders.ts';
import { treeEntries } from '../inspect/entries.ts';
import { type Loss, Losses } from './losses.ts';

export interface UnpackOptions<Content> {
  /** A file's bytes in order, checked. */
  readonly content: (file: RegularFile<Content>) => AsyncIterable<Uint8Array>;
  /** Called after each entry. */
  readonly progress?: (done: UnpackCount) => void;
  readonly signal?: AbortSignal;
}

export interface UnpackCount {
  readonly entries: number;
  /** Of regular files' content. */
  readonly bytes: number;
}

export interface UnpackReport extends UnpackCount {
  /** What the rights of this process, or the file system, did not allow to restore. */
  readonly lost: readonly Loss[];
}

/** Bytes of a path with the zero at its end (PATH_MAX, linux/limits.h). */
const MAX_PATH = 4096;

/**
 * Writes a tree into a directory that is new or empty: content, kinds, hard links, permissions, times to the
 * nanosecond; owners, devices and privileged xattrs as far as this process may, and what it may not is reported.
 * Runs of zeros of whole writes become holes.
 *
 * @throws `already-exists` when something is in the directory; `failed-precondition` for a path that no system call
 *   takes; `disk-full`; what `content` throws; the reason of the signal
 */
export async function unpackDirectory<Content>(
  root: Directory<Content>,
  directory: string,
  options: UnpackOptions<Content>,
): Promise<UnpackReport> {
  const top = Buffer.from(resolve(directory));
  await makeFolder(resolve(directory));
  checkEmpty(top);
  const restoring = new Restoring();
  const firsts = new Map<Node<Content>, Buffer>();
  const open: { readonly node: Directory<Content>; readonly path: ByteString; readonly place: Buffer }[] = [];
  let [entries, bytes] = [0, 0];
  for (const { path, node } of treeEntries(root)) {
    throwIfAborted(options.signal);
    // What is complete gets its time last: each new entry changes its directory's.
    while (open.length > 0 && !isBelow(path, (open.at(-1) as { path: ByteString }).path)) {
      const done = open.pop() as { node: Directory<Content>; path: ByteString; place: Buffer };
      restoring.attributes(done.node, done.path, done.place);
    }
    const place = path === '.' ? top : placeOf(top, path);
    const first = firsts.get(node);
    if (node.kind === 'directory') {
      if (path !== '.') mkdirSync(place, 0o700);
      open.push({ node, path, place });
    } else if (first !== undefined) {
      linkSync(first, place);
    } else {
      if (node.kind === 'regular') bytes += await writeFile(node, place, options);
      if (node.kind === 'symlink') symlinkSync(bytesOf(node.target), place);
      const isThere = isSpecial(node) ? restoring.special(node, path, place) : true;
      if (isThere) {
        restoring.attributes(node, path, place);
        firsts.set(node, place);
      }
    }
    entries++;
    options.progress?.({ entries, bytes });
  }
  for (const { node, path, place } of open.reverse()) restoring.attributes(node, path, place);
  return { entries, bytes, lost: restoring.losses.list };
}

function checkEmpty(top: Buffer): void {
  if (readdirSync(top).length === 0) return;
  throw new PantalaError('already-exists', `${top.toString()} is not empty; name a new directory or an empty one`);
}

function isBelow(path: ByteString, folder: ByteString): boolean {
  return folder === '.' || path.startsWith(`${folder}/`);
}

function placeOf(top: Buffer, path: ByteString): Buffer {
  const place = Buffer.concat([top, Buffer.from('/'), bytesOf(path)]);
  if (place.length >= MAX_PATH) {
    throw new PantalaError(
      'failed-precondition',
      `${shown(path).slice(0, 80)}… would have a path of ${place.length} bytes, and Linux takes ${MAX_PATH - 1}; unpack into a .tar instead`,
    );
  }
  return place;
}

function isSpecial<Content>(node: Node<Content>): node is Device | Special {
  return node.kind === 'character' || node.kind === 'block' || node.kind === 'fifo' || node.kind === 'socket';
}

/** Writes a file that must not be there, and returns its length. */
async function writeFile<Content>(
  file: RegularFile<Content>,
  place: Buffer,
  options: UnpackOptions<Content>,
): Promise<number> {
  const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;
  const descriptor = openSync(place, flags, 0o600);
  try {
    let offset = 0;
    for await (const data of options.content(file)) {
      throwIfAborted(options.signal);
      if (!isZero(data)) writeWhole(descriptor, data, offset);
      offset += data.length;
    }
    // The end may be a hole.
    ftruncateSync(descriptor, file.size);
    return file.size;
  } finally {
    closeSync(descriptor);
  }
}

function writeWhole(descriptor: number, data: Uint8Array, position: number): void {
  for (let done = 0; done < data.length; ) {
    done += writeSync(descriptor, data, done, data.length - done, position + done);
  }
}

const ZEROS = Buffer.alloc(64 * 1024);

/** Whether all bytes are zero; most content says no at the first byte. */
function isZero(data: Uint8Array): boolean {
  if (data[0] !== 0) return false;
  for (let start = 0; start < data.length; start += ZEROS.length) {
    const part = data.subarray(start, start + ZEROS.length);
    if (Buffer.compare(part, ZEROS.subarray(0, part.length)) !== 0) return false;
  }
  return true;
}

/** Gives files what they have besides content, and notes what it may not give. */
class Restoring {
  readonly losses = new Losses();

  /** Whether it could be made. */
  special(node: Device | Special, path: ByteString, place: Buffer): boolean {
    const [major, minor] = 'major' in node ? [node.major, node.minor] : [0, 0];
    const what = 'major' in node ? 'device' : node.kind;
    return this.#attempt(what, path, () => makeNode(place, node.kind, node.attributes.mode, major, minor));
  }

  attributes<Content>(node: Node<Content>, path: ByteString, place: Buffer): void {
    const { uid, gid, mode, mtime, xattrs } = node.attributes;
    // First of all, for it takes setuid, setgid and capabilities away.
    this.#attempt('owner', path, () => lchownSync(place, uid, gid));
    // Before the permissions, which may forbid it to who is not root.
    for (const [name, value] of xattrs) {
      this.#attempt(`xattr ${namespaceOf(name)}`, path, () => setXattr(place, bytesOf(name), value));
    }
    if (node.kind !== 'symlink') chmodSync(place, mode);
    setTimes(place, mtime.seconds, mtime.nanoseconds);
    if (Math.abs(mtime.seconds) >= FAR_TIME) this.#farTime(mtime, path, place);
  }

  /** The kernel moves times that a file system cannot keep to the next one that it can, without a word. */
  #farTime({ seconds }: Timestamp, path: ByteString, place: Buffer): void {
    const kept = Number(lstatSync(place, { bigint: true }).mtimeMs / 1000n);
    if (Math.abs(kept - seconds) > 1) this.losses.add('time', path, `the file system made ${kept} of ${seconds} s`);
  }

  #attempt(what: string, path: ByteString, act: () => void): boolean {
    try {
      act();
      return true;
    } catch (error) {
      const { code, details, message } = PantalaError.from(error);
      const refused = code === 'permission-denied' || UNSUPPORTED.has(String(details.errno));
      if (!refused) throw error;
      this.losses.add(what, path, message);
      return false;
    }
  }
}

/** Seconds from 1970 that every file system can keep. */
const FAR_TIME = 2 ** 31;

/** What file systems answer that have no such thing, or no room for it in an inode. */
const UNSUPPORTED = new Set(['EOPNOTSUPP', 'ENOTSUP', 'EINVAL', 'ERANGE', 'E2BIG', 'ENOSPC']);

function namespaceOf(name: ByteString): string {
  return `${name.slice(0, name.indexOf('.'))}.*`;
}
