import type { BigIntStats } from 'node:fs';
import { ACCESS_EVENT_LENGTH, accessEvents } from '@pantala/linux';

/** A file of the cache, as the kernel tells files apart. */
export interface FileIdentity {
  readonly device: bigint;
  readonly inode: bigint;
}

/** An unanswered read of a cache file, as it is noted: the kernel's event, then device and inode of the file. */
export interface AccessRecord {
  /** Number of the event's descriptor in the process that took it from the kernel. */
  readonly fd: number;
  /** Process that reads. */
  readonly pid: number;
  readonly offset: number;
  readonly count: number;
  /** Undefined when the worker died before it had asked for it. */
  readonly file: FileIdentity | undefined;
}

/** One that is in the table. */
export interface TakenAccess extends AccessRecord {
  readonly slot: number;
}

const RECORD_LENGTH = ACCESS_EVENT_LENGTH + 16;

/** @param event as the kernel wrote it */
export function encodeAccess(event: Uint8Array, file: FileIdentity | undefined): Uint8Array {
  const record = new Uint8Array(RECORD_LENGTH);
  record.set(event.subarray(0, ACCESS_EVENT_LENGTH));
  if (file !== undefined) {
    const view = new DataView(record.buffer);
    view.setBigUint64(ACCESS_EVENT_LENGTH, file.device, true);
    view.setBigUint64(ACCESS_EVENT_LENGTH + 8, file.inode, true);
  }
  return record;
}

/** Undefined when it is none. */
export function decodeAccess(record: Uint8Array): AccessRecord | undefined {
  const [event] = accessEvents(record.subarray(0, ACCESS_EVENT_LENGTH));
  if (event === undefined || record.length !== RECORD_LENGTH) return undefined;
  const view = new DataView(record.buffer, record.byteOffset);
  const inode = view.getBigUint64(ACCESS_EVENT_LENGTH + 8, true);
  const file = inode === 0n ? undefined : { device: view.getBigUint64(ACCESS_EVENT_LENGTH, true), inode };
  return { fd: event.fd, pid: event.pid, offset: event.offset, count: event.count, file };
}

export function identityOf(stats: BigIntStats): FileIdentity {
  return { device: stats.dev, inode: stats.ino };
}

/** A key for maps. */
export function identityKey({ device, inode }: FileIdentity): string {
  return `${device}:${inode}`;
}
