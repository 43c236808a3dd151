import { closeSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { callNow, checked, memoryAt } from './libc.ts';

/** Flags of eventfd(2), sys/eventfd.h. */
const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;

/** A descriptor by which one thread wakes another that waits in `poll`. */
export class WakeUp implements Disposable {
  readonly fd: number;

  /** @throws LinuxError; `unimplemented` */
  constructor() {
    this.fd = checked('eventfd', [0], callNow('eventfd', [0, EFD_CLOEXEC | EFD_NONBLOCK]));
  }

  /** From now on `poll` finds it readable. */
  wake(): void {
    writeSync(this.fd, new BigUint64Array([1n]));
  }

  [Symbol.dispose](): void {
    closeSync(this.fd);
  }
}

/** Events of poll(2), poll.h. */
export const POLLIN = 1;
export const POLLERR = 8;
export const POLLHUP = 16;

/**
 * poll(2) for reading: blocks this thread until one of the descriptors has something or has failed.
 *
 * @param timeout milliseconds; -1 for ever
 * @returns the events of each descriptor, in order; all 0 after the time or a signal
 * @throws LinuxError; `unimplemented`
 */
export function pollReadable(descriptors: readonly number[], timeout: number): number[] {
  // struct pollfd: int fd; short events; short revents.
  const table = new Int16Array(descriptors.length * 4);
  const words = new Int32Array(table.buffer);
  for (const [index, fd] of descriptors.entries()) {
    words[index * 2] = fd;
    table[index * 4 + 2] = POLLIN;
  }
  const result = callNow('poll', [table, descriptors.length, timeout]);
  if (result === -constants.errno.EINTR) return descriptors.map(() => 0);
  checked('poll', [descriptors.join(' '), timeout], result);
  return descriptors.map((_, index) => table[index * 4 + 3] as number);
}

/** sys/epoll.h. */
const EPOLL_CLOEXEC = 0o2000000;
const EPOLL_CTL_ADD = 1;
const EPOLLIN = 1;
const EPOLLEXCLUSIVE = 2 ** 28;
/** Bytes of struct epoll_event, and where its data is: it is packed on x86-64 only. */
const EPOLL_EVENT = process.arch === 'x64' ? { length: 12, data: 4 } : { length: 16, data: 8 };

/**
 * Waits for descriptors, of which several threads may wait for the same one, each by a set of its own: what comes wakes
 * one of those that wait, where poll(2) would wake all.
 */
export class ReadableSet implements Disposable {
  readonly #fd: number;
  readonly #events: DataView;

  /**
   * @param shared descriptors that wake one thread
   * @param own descriptors that wake every thread
   * @throws LinuxError; `unimplemented`
   */
  constructor(shared: readonly number[], own: readonly number[]) {
    this.#fd = checked('epoll_create1', [0], callNow('epoll_create1', [EPOLL_CLOEXEC]));
    this.#events = new DataView(new ArrayBuffer(Math.max(64, EPOLL_EVENT.length * (shared.length + own.length))));
    for (const fd of shared) this.#add(fd, EPOLLIN + EPOLLEXCLUSIVE);
    for (const fd of own) this.#add(fd, EPOLLIN);
  }

  #add(fd: number, events: number): void {
    this.#events.setUint32(0, events, true);
    this.#events.setInt32(EPOLL_EVENT.data, fd, true);
    checked('epoll_ctl', [fd], callNow('epoll_ctl', [this.#fd, EPOLL_CTL_ADD, fd, this.#events]));
  }

  /**
   * Blocks this thread until one of the descriptors has something or has failed.
   *
   * @param timeout milliseconds; -1 for ever
   * @returns those that have; none after the time or a signal
   * @throws LinuxError
   */
  wait(timeout: number): number[] {
    const capacity = Math.floor(this.#events.byteLength / EPOLL_EVENT.length);
    const result = callNow('epoll_wait', [this.#fd, this.#events, capacity, timeout]);
    if (result === -constants.errno.EINTR) return [];
    const count = checked('epoll_wait', [timeout], result);
    return Array.from({ length: count }, (_, at) =>
      this.#events.getInt32(at * EPOLL_EVENT.length + EPOLL_EVENT.data, true),
    );
  }

  [Symbol.dispose](): void {
    closeSync(this.#fd);
  }
}

/**
 * read(2) into memory at an address, of which Node's own functions know nothing.
 *
 * @returns bytes; 0 at the end; minus the errno when it fails
 */
export function readInto(fd: number, buffer: Uint8Array): number {
  return callNow('read', [fd, buffer, buffer.byteLength]);
}

/** write(2), all or nothing, for kernel interfaces. @returns bytes, or minus the errno when it fails */
export function writeFrom(fd: number, buffer: Uint8Array): number {
  return callNow('write', [fd, buffer, buffer.byteLength]);
}

/** linux/memfd.h, sys/mman.h. */
const MFD_CLOEXEC = 1;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;

/** A piece of memory without a name that outlives a process as long as another one holds its descriptor. */
export function createSharedMemory(name: string): number {
  return checked('memfd_create', [name], callNow('memfd_create', [name, MFD_CLOEXEC]));
}

/**
 * Maps a descriptor's first `length` bytes, shared with everybody who maps it. It stays mapped until the process
 * ends: a view of it that is used after unmapping would end the process.
 *
 * @throws LinuxError; `unimplemented`
 */
export function mapShared(fd: number, length: number): Uint8Array<ArrayBuffer> {
  const args = [null, length, PROT_READ_WRITE, MAP_SHARED, fd, 0] as const;
  const address = checked('mmap', [length, fd], callNow('mmap', args));
  return new Uint8Array(memoryAt(address, length));
}
