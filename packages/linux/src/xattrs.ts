import { constants } from 'node:os';
import { callNow, checked, type Result } from './libc.ts';

/** The longest list of names and the longest value (XATTR_LIST_MAX and XATTR_SIZE_MAX, linux/limits.h). */
const MAX_LENGTH = 64 * 1024;

const scratch = Buffer.alloc(MAX_LENGTH);

/**
 * Names of the extended attributes of a file or symbolic link itself; empty where the file system has none.
 *
 * @throws LinuxError; `unimplemented`
 */
export function listXattrs(path: Buffer): Buffer[] {
  const result = callNow('llistxattr', [terminated(path), scratch, MAX_LENGTH]);
  if (isNone(result)) return [];
  const length = checked('llistxattr', [path.toString()], result);
  const names: Buffer[] = [];
  for (let start = 0; start < length; ) {
    const end = scratch.indexOf(0, start);
    names.push(Buffer.from(scratch.subarray(start, end)));
    start = end + 1;
  }
  return names;
}

/**
 * Value of one of them; undefined when it is gone.
 *
 * @throws LinuxError with EPERM or EACCES; `unimplemented`
 */
export function getXattr(path: Buffer, name: Buffer): Buffer | undefined {
  const result = callNow('lgetxattr', [terminated(path), terminated(name), scratch, MAX_LENGTH]);
  if (isNone(result)) return undefined;
  const length = checked('lgetxattr', [path.toString(), name.toString()], result);
  return Buffer.from(scratch.subarray(0, length));
}

function isNone(result: Result): boolean {
  return result === -constants.errno.EOPNOTSUPP || result === -constants.errno.ENODATA;
}

function terminated(text: Buffer): Buffer {
  const copy = Buffer.alloc(text.length + 1);
  text.copy(copy);
  return copy;
}
