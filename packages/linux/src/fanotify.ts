import { constants } from 'node:os';
import { writeFrom } from './descriptors.ts';
import { callNow, checked } from './libc.ts';

/** Flags and masks of linux/fanotify.h. */
const FAN_CLOEXEC = 0x1;
const FAN_NONBLOCK = 0x2;
const FAN_CLASS_PRE_CONTENT = 0x8;
const FAN_UNLIMITED_QUEUE = 0x10;
const FAN_UNLIMITED_MARKS = 0x20;
const FAN_MARK_ADD = 0x1;
const FAN_MARK_REMOVE = 0x2;
const FAN_PRE_ACCESS = 0x10_0000n;
const FAN_Q_OVERFLOW = 0x4000n;
const FAN_ALLOW = 1;
const FAN_DENY = 2;
const FAN_EVENT_INFO_TYPE_RANGE = 6;
const AT_FDCWD = -100;
const O_RDWR = 0o2;
const O_LARGEFILE = 0o100000;
const O_CLOEXEC = 0o2000000;

/**
 * A group that is asked before bytes of marked files are read (Linux 6.15). Its queue has no limit: an event for which
 * there is no room would let its reader through. The descriptors of its events are open for writing, and what is
 * written through them raises no event.
 *
 * @returns a descriptor; it does not block, and closing the last one of a group lets every reader through
 * @throws LinuxError: EPERM without CAP_SYS_ADMIN, EINVAL before Linux 6.14; `unimplemented`
 */
export function createAccessGroup(): number {
  const flags = FAN_CLASS_PRE_CONTENT | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_QUEUE | FAN_UNLIMITED_MARKS;
  const result = callNow('fanotify_init', [flags, O_RDWR | O_LARGEFILE | O_CLOEXEC]);
  return checked('fanotify_init', ['FAN_CLASS_PRE_CONTENT'], result);
}

/**
 * Has the group asked before every read of a file.
 *
 * @throws LinuxError: EOPNOTSUPP where the file system does not take the mark (tmpfs, overlayfs)
 */
export function markFile(group: number, path: string): void {
  const result = callNow('fanotify_mark', [group, FAN_MARK_ADD, FAN_PRE_ACCESS, AT_FDCWD, path]);
  checked('fanotify_mark', [group, 'FAN_MARK_ADD', 'FAN_PRE_ACCESS', path], result);
}

/** The group is no longer asked. False when the file had no mark. @throws LinuxError */
export function unmarkFile(group: number, path: string): boolean {
  const result = callNow('fanotify_mark', [group, FAN_MARK_REMOVE, FAN_PRE_ACCESS, AT_FDCWD, path]);
  if (result === -constants.errno.ENOENT) return false;
  checked('fanotify_mark', [group, 'FAN_MARK_REMOVE', 'FAN_PRE_ACCESS', path], result);
  return true;
}

/** A read that waits for an answer. */
export interface AccessEvent {
  /** Open on the file for reading and writing; its number names the event in the answer. -1 for an overflow. */
  readonly fd: number;
  /** Who reads, in this process's PID namespace. */
  readonly pid: number;
  readonly offset: number;
  /** Bytes that are read; may reach beyond the end of the file. */
  readonly count: number;
  /** The kernel had no room for an event: some reader was let through. */
  readonly overflow: boolean;
}

/** Bytes of an event of such a group: struct fanotify_event_metadata and one struct fanotify_event_info_range. */
export const ACCESS_EVENT_LENGTH = 48;
/** Bytes of struct fanotify_event_metadata. */
const METADATA_LENGTH = 24;
/** FANOTIFY_METADATA_VERSION. */
const METADATA_VERSION = 3;

/**
 * The events in a buffer that read(2) has filled, each with its place; ends where a length is 0 or makes no sense.
 */
export function* accessEvents(buffer: Uint8Array): Generator<AccessEvent & { readonly at: number }> {
  const view = new DataView(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  for (let at = 0; at + METADATA_LENGTH <= buffer.byteLength; ) {
    const length = view.getUint32(at, true);
    if (length < METADATA_LENGTH || at + length > buffer.byteLength || view.getUint8(at + 4) !== METADATA_VERSION)
      return;
    let offset = 0;
    let count = 0;
    for (let info = at + view.getUint16(at + 6, true); info + 4 <= at + length; ) {
      const infoLength = view.getUint16(info + 2, true);
      if (view.getUint8(info) === FAN_EVENT_INFO_TYPE_RANGE && infoLength >= 24) {
        offset = Number(view.getBigUint64(info + 8, true));
        count = Number(view.getBigUint64(info + 16, true));
      }
      if (infoLength === 0) break;
      info += infoLength;
    }
    const overflow = (view.getBigUint64(at + 8, true) & FAN_Q_OVERFLOW) !== 0n;
    yield { at, fd: view.getInt32(at + 16, true), pid: view.getInt32(at + 20, true), offset, count, overflow };
    at += length;
  }
}

/** Errors that a denial can carry (Linux 6.14): `fanotify` takes no others. */
const DENIALS = new Set([
  constants.errno.EPERM,
  constants.errno.EIO,
  constants.errno.EBUSY,
  constants.errno.ETXTBSY,
  constants.errno.EAGAIN,
  constants.errno.ENOSPC,
  constants.errno.EDQUOT,
]);

/**
 * Lets the reader of an event go on, or fails its read.
 *
 * @param fd the number of the event's descriptor in the process that read the event
 * @param errno for the reader; 0 to let it go on. EIO when the kernel cannot carry it
 * @returns false when nobody waits for this answer any more
 * @throws LinuxError
 */
export function answerAccess(group: number, fd: number, errno: number): boolean {
  const carried = DENIALS.has(errno) ? errno : constants.errno.EIO;
  const response = errno === 0 ? FAN_ALLOW : (FAN_DENY | (carried << 24)) >>> 0;
  const result = writeFrom(group, new Uint8Array(new Uint32Array([fd, response]).buffer));
  if (result === -constants.errno.ENOENT) return false;
  checked('write', [group, `event ${fd}`, response === FAN_ALLOW ? 'FAN_ALLOW' : 'FAN_DENY'], result);
  return true;
}
