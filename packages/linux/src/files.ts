import { statfsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { constants } from 'node:os';
import { PantalaError, throwIfAborted } from '@pantala/base';
import { addressOf, callNow, callOnThread, checked, whyMissing } from './libc.ts';

/** The answer of `sendfile` when the socket's buffer is full. */
export const WOULD_BLOCK = -1;

/** `off_t *` of a call; off the heap of V8, so that it stays in its place while a thread writes to it. */
function offsetCell(): BigInt64Array {
  return new BigInt64Array(new ArrayBuffer(8));
}

const sendfileOffset = offsetCell();

/**
 * sendfile(2) to a non-blocking socket: bytes that went into its buffer, 0 at the end of the file, WOULD_BLOCK.
 *
 * @throws LinuxError; `unimplemented` where there is no sendfile
 */
export function sendfile(socket: number, file: number, offset: number, count: number): number {
  sendfileOffset[0] = BigInt(offset);
  const result = callNow('sendfile', [socket, file, sendfileOffset, count]);
  if (result === -constants.errno.EAGAIN || result === -constants.errno.EINTR) return WOULD_BLOCK;
  return checked('sendfile', [socket, file, offset, count], result);
}

/** RWF_NOWAIT of linux/fs.h: fail rather than wait for a disk. */
const RWF_NOWAIT = 8;

/** Bytes that are read at once at most: a little more costs less on a thread than it takes from everybody else. */
export const MAX_CACHED_READ = 16 * 1024;

/** Where such reads go: outside of V8's heap, so that it stays in its place, and described once for all calls. */
const cachedBytes = Buffer.allocUnsafeSlow(MAX_CACHED_READ);
let cachedVector: BigInt64Array | undefined;

/**
 * Reads a few bytes of a file on this thread if the page cache has them: to hand a read to another thread and back
 * costs 20 times what the read does. Undefined where it would wait for a disk, the file ends before, or the file system
 * or C library cannot tell.
 */
export function readCached(file: number, position: number, length: number): Buffer | undefined {
  if (length > MAX_CACHED_READ || whyMissing('preadv2') !== undefined) return undefined;
  cachedVector ??= new BigInt64Array([addressOf(cachedBytes), 0n]);
  cachedVector[1] = BigInt(length);
  const read = callNow('preadv2', [file, cachedVector, 1, position, RWF_NOWAIT]);
  return read === length ? Buffer.from(cachedBytes.subarray(0, length)) : undefined;
}

/** FICLONE of linux/fs.h: _IOW(0x94, 9, int). */
const FICLONE = 0x4004_9409;

/**
 * Makes `target` share all blocks of `source`.
 *
 * @throws LinuxError with EOPNOTSUPP, EXDEV, EINVAL or ENOTTY where the file system cannot do that
 */
export async function reflink(source: number, target: number): Promise<void> {
  checked('ioctl', [target, 'FICLONE', source], await callOnThread('ioctl', [target, FICLONE, source]));
}

/** Bytes of one copy_file_range: the call does not listen to signals, a copy may be stopped between two. */
const COPY_STEP = 16 * 1024 * 1024;

export interface CopyOptions {
  /** Offset in the target. Default: the same as in the source. */
  readonly to?: number;
}

/**
 * Copies a range between two files inside the kernel, by sharing blocks where the file system can.
 *
 * @throws LinuxError with EXDEV, EOPNOTSUPP or EINVAL where the file systems cannot do that; `data-loss` when the
 *   source ends before the range does; the reason of `signal`
 */
export async function copyFileRange(
  source: number,
  target: number,
  range: { readonly start: number; readonly end: number },
  signal?: AbortSignal,
  { to: targetStart = range.start }: CopyOptions = {},
): Promise<void> {
  const from = offsetCell();
  const to = offsetCell();
  for (let offset = range.start; offset < range.end; ) {
    throwIfAborted(signal);
    from[0] = BigInt(offset);
    to[0] = BigInt(offset - range.start + targetStart);
    const count = Math.min(COPY_STEP, range.end - offset);
    const args = [source, from, target, to, count, 0] as const;
    const copied = checked(
      'copy_file_range',
      [source, offset, target, offset, count],
      await callOnThread('copy_file_range', args),
    );
    if (copied === 0) throw new PantalaError('data-loss', `the source file ends at ${offset} before ${range.end}`);
    offset += copied;
  }
}

/** Modes of fallocate(2), linux/falloc.h. */
const FALLOC_FL_KEEP_SIZE = 1;
const FALLOC_FL_PUNCH_HOLE = 2;

/** Reserves the blocks of a range without changing the file's size. @throws LinuxError */
export async function allocate(file: number, offset: number, length: number): Promise<void> {
  const args = [file, FALLOC_FL_KEEP_SIZE, offset, length] as const;
  checked('fallocate', args, await callOnThread('fallocate', args));
}

/** Gives the blocks of a range back to the file system; it reads as zeros afterwards. @throws LinuxError */
export async function punchHole(file: number, offset: number, length: number): Promise<void> {
  const args = [file, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, offset, length] as const;
  checked('fallocate', args, await callOnThread('fallocate', args));
}

/** Operations of flock(2), sys/file.h. */
const LOCK_EX = 2;
const LOCK_NB = 4;

/**
 * Takes the lock of an open file for this process, until it closes the file or dies. False when another has it.
 *
 * @throws LinuxError; `unimplemented`
 */
export function tryLock(file: number): boolean {
  const result = callNow('flock', [file, LOCK_EX | LOCK_NB]);
  if (result === -constants.errno.EWOULDBLOCK) return false;
  checked('flock', [file, 'LOCK_EX | LOCK_NB'], result);
  return true;
}

/** Magic numbers of statfs(2) (linux/magic.h) for those that a store is likely to lie on. */
const FILE_SYSTEMS: ReadonlyMap<number, string> = new Map([
  [0xef53, 'ext4'],
  [0x5846_5342, 'xfs'],
  [0x9123_683e, 'btrfs'],
  [0x0102_1994, 'tmpfs'],
  [0x794c_7630, 'overlayfs'],
  [0x6969, 'nfs'],
  [0x2fc1_2fc1, 'zfs'],
  [0xf2f5_2010, 'f2fs'],
  [0x6573_5546, 'fuse'],
]);

/** Whether the files of a file system are never anywhere but in memory. */
export function isInMemory(path: string): boolean {
  return FILE_SYSTEMS.get(statfsSync(path).type) === 'tmpfs';
}

export interface FileSystem {
  /** `ext4`, or the magic number in hex. */
  readonly type: string;
  readonly totalBytes: number;
  /** What an unprivileged user may still write. */
  readonly freeBytes: number;
  /** What is taken, out of what a user could ever have: reserved blocks count for neither. */
  readonly usedBytes: number;
}

/** The file system that a path lies on. */
export async function fileSystemOf(path: string): Promise<FileSystem> {
  const { type, bsize, blocks, bfree, bavail } = await statfs(path);
  return {
    type: FILE_SYSTEMS.get(type) ?? `0x${type.toString(16)}`,
    totalBytes: (blocks - bfree + bavail) * bsize,
    freeBytes: bavail * bsize,
    usedBytes: (blocks - bfree) * bsize,
  };
}
