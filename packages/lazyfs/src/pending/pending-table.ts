import { ftruncateSync } from 'node:fs';
import { PantalaError } from '@pantala/base';
import { createSharedMemory, mapShared } from '@pantala/linux';

/** Reads that wait at once. Each holds a descriptor, and a blocked thread of somebody's. */
export const MAX_PENDING = 4096;
/** Bytes of a slot: the length of its record (u32), then the record. Fits a FUSE lookup of a name of 64 digits. */
const SLOT_LENGTH = 128;
const MAX_RECORD_LENGTH = SLOT_LENGTH - 4;
const HEADER_LENGTH = 4096;
/** Bytes that one read(2) may take from the kernel: the least that FUSE accepts. */
const INTAKE_LENGTH = 8 * 1024;
/** Threads that read from the kernel at once, each with an intake of its own. */
export const MAX_INTAKES = 8;
const SLOTS_AT = HEADER_LENGTH + MAX_INTAKES * INTAKE_LENGTH;
const TABLE_LENGTH = SLOTS_AT + MAX_PENDING * SLOT_LENGTH;
/** Length of a slot whose record is being written. */
const RESERVED = -1;

/** "PNT1": the layout below. */
const MAGIC = 0x504e_5431;
/** Words (u32) of the header. */
const MAGIC_WORD = 0;
const COUNT_WORD = 1;

/**
 * What the kernel has handed to a worker and what is not yet answered, in memory that outlives the worker: the
 * guardian holds its descriptor. The kernel itself writes into an intake, so that there is no moment at which only the
 * worker knows of a read: a thread zeroes its intake, has the kernel fill it, answers each record or copies it to a slot,
 * and zeroes it.
 *
 * Some threads add records, another frees them; a slot's length is written last and cleared first.
 */
export class PendingTable {
  readonly fd: number;
  readonly #words: Int32Array;
  readonly #bytes: Uint8Array;
  #cursor: number;

  /** Memory for a new table. @throws LinuxError; `unimplemented` */
  static create(): number {
    const fd = createSharedMemory('pantala-pending');
    ftruncateSync(fd, TABLE_LENGTH);
    return fd;
  }

  /**
   * @param index of the thread among those that add records
   * @throws LinuxError; `data-loss` when it is the memory of another layout; `unimplemented`
   */
  constructor(fd: number, index = 0) {
    this.fd = fd;
    // Threads that look for free slots in different places do not meet.
    this.#cursor = (index * MAX_PENDING) / MAX_INTAKES;
    const memory = mapShared(fd, TABLE_LENGTH);
    this.#words = new Int32Array(memory.buffer);
    this.#bytes = memory;
    const magic = this.#words[MAGIC_WORD];
    if (magic === 0) this.#words[MAGIC_WORD] = MAGIC;
    else if (magic !== MAGIC) throw new PantalaError('data-loss', 'the list of unanswered reads has another layout');
  }

  /** Where a thread has the kernel write. @param index less than MAX_INTAKES */
  intakeOf(index: number): Uint8Array {
    const at = HEADER_LENGTH + index * INTAKE_LENGTH;
    return this.#bytes.subarray(at, at + INTAKE_LENGTH);
  }

  /** All of them, for whoever looks what was left there. */
  get intakes(): Uint8Array[] {
    return Array.from({ length: MAX_INTAKES }, (_, index) => this.intakeOf(index));
  }

  /** Records that are there. */
  get count(): number {
    return Atomics.load(this.#words, COUNT_WORD);
  }

  /** Records that one of `threads` may add, whatever the others do. */
  roomFor(threads: number): number {
    return Math.max(0, Math.floor((MAX_PENDING - this.count) / threads));
  }

  /** Keeps a record. The table must have room: `roomFor` tells. @returns its slot */
  add(record: Uint8Array): number {
    if (record.length === 0 || record.length > MAX_RECORD_LENGTH) {
      throw new PantalaError('internal', `a record of ${record.length} bytes does not fit into a slot`);
    }
    for (let tried = 0; tried < MAX_PENDING; tried++) {
      const slot = this.#cursor;
      this.#cursor = (slot + 1) % MAX_PENDING;
      const word = wordOf(slot);
      if (Atomics.compareExchange(this.#words, word, 0, RESERVED) !== 0) continue;
      this.#bytes.set(record, word * 4 + 4);
      Atomics.store(this.#words, word, record.length);
      Atomics.add(this.#words, COUNT_WORD, 1);
      return slot;
    }
    throw new PantalaError('internal', 'the list of unanswered reads is full');
  }

  free(slot: number): void {
    Atomics.store(this.#words, wordOf(slot), 0);
    Atomics.sub(this.#words, COUNT_WORD, 1);
  }

  /** A copy of what a slot holds; undefined when it is free. */
  record(slot: number): Uint8Array | undefined {
    const word = wordOf(slot);
    const length = Atomics.load(this.#words, word);
    if (length <= 0 || length > MAX_RECORD_LENGTH) return undefined;
    return this.#bytes.slice(word * 4 + 4, word * 4 + 4 + length);
  }

  /** Everything that a worker before this one left unanswered. To be called before anything is added. */
  leftOver(): { readonly slot: number; readonly record: Uint8Array }[] {
    const found: { slot: number; record: Uint8Array }[] = [];
    for (let slot = 0; slot < MAX_PENDING; slot++) {
      const record = this.record(slot);
      if (record !== undefined) found.push({ slot, record });
      // Its record is still in the intake that it was to be copied from.
      else Atomics.store(this.#words, wordOf(slot), 0);
    }
    Atomics.store(this.#words, COUNT_WORD, found.length);
    return found;
  }
}

function wordOf(slot: number): number {
  return (SLOTS_AT + slot * SLOT_LENGTH) / 4;
}
