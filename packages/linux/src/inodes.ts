import { callNow, checked } from './libc.ts';

/** Kinds of files that mknod(2) makes, sys/stat.h. */
export const NODE_KINDS = { character: 0o020000, block: 0o060000, fifo: 0o010000, socket: 0o140000 } as const;

/** AT_FDCWD and AT_SYMLINK_NOFOLLOW, fcntl.h. */
const AT_FDCWD = -100;
const AT_SYMLINK_NOFOLLOW = 0x100;

/**
 * Makes a device, fifo or socket. The process's umask takes its part of `mode` away.
 *
 * @throws LinuxError with EPERM for devices without CAP_MKNOD, EEXIST; `unimplemented`
 */
export function makeNode(path: Buffer, kind: keyof typeof NODE_KINDS, mode: number, major = 0, minor = 0): void {
  checked(
    'mknod',
    [shown(path), kind],
    callNow('mknod', [terminated(path), NODE_KINDS[kind] | mode, device(major, minor)]),
  );
}

/** gnu_dev_makedev of glibc and musl: twelve bits of the major and eight of the minor number in the lower half. */
function device(major: number, minor: number): bigint {
  const [high, low] = [BigInt(major), BigInt(minor)];
  return ((high & 0xfffff000n) << 32n) | ((high & 0xfffn) << 8n) | ((low & 0xffffff00n) << 12n) | (low & 0xffn);
}

/**
 * Sets the time of last change, and that of last access to the same, of a file or symbolic link itself. Node's own
 * function has no nanoseconds and takes negative numbers for now.
 *
 * @param seconds since 1970, may be negative
 * @throws LinuxError; `unimplemented`
 */
export function setTimes(path: Buffer, seconds: number, nanoseconds: number): void {
  const times = new BigInt64Array([BigInt(seconds), BigInt(nanoseconds), BigInt(seconds), BigInt(nanoseconds)]);
  checked('utimensat', [shown(path)], callNow('utimensat', [AT_FDCWD, terminated(path), times, AT_SYMLINK_NOFOLLOW]));
}

/**
 * Sets an extended attribute of a file or symbolic link itself.
 *
 * @param name whole, as `security.capability`
 * @throws LinuxError with EPERM, EOPNOTSUPP where the file system has none of this kind, ENOSPC; `unimplemented`
 */
export function setXattr(path: Buffer, name: Buffer, value: Uint8Array): void {
  checked(
    'lsetxattr',
    [shown(path), shown(name)],
    callNow('lsetxattr', [terminated(path), terminated(name), value, value.length, 0]),
  );
}

function terminated(text: Buffer): Buffer {
  const copy = Buffer.alloc(text.length + 1);
  text.copy(copy);
  return copy;
}

/** For messages. */
function shown(path: Buffer): string {
  return path.toString();
}
