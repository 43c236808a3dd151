import { Deferred, PantalaError, throwIfAborted } from '@pantala/base';
import { type Slot, type SlotLayout, slotMemory, slotOf } from './parcel.ts';

/** Memory of all slots together: two of the longest chunks with what they compress to, and a little more. */
const SLOTS_LENGTH = 80 * 1024 * 1024;

/** Fewer leave workers without work, more only take memory: one is read into, one is being written. */
const SLOTS_PER_WORKER = 2;
const SPARE_SLOTS = 2;
const MIN_SLOTS = 2;

/** How many slots keep workers busy, within a bound of memory. */
export function slotCount(workers: number, { length, compresses }: SlotLayout): number {
  const fitting = Math.floor(SLOTS_LENGTH / ((compresses ? 2 : 1) * length));
  return Math.max(MIN_SLOTS, Math.min(SLOTS_PER_WORKER * workers + SPARE_SLOTS, fitting));
}

/** The memory of builds: who has no slot waits, and so does whoever feeds it. */
export class SlotPool {
  readonly memories: readonly SharedArrayBuffer[];
  /** Bytes of content of each. */
  readonly length: number;
  readonly #free: Slot[];
  readonly #waiting: Deferred<Slot>[] = [];

  constructor(count: number, layout: SlotLayout) {
    this.length = layout.length;
    this.memories = Array.from({ length: count }, () => slotMemory(layout));
    this.#free = this.memories.map((memory, index) => slotOf(index, memory, layout));
  }

  /** @throws the reason of `signal` */
  async acquire(signal: AbortSignal): Promise<Slot> {
    throwIfAborted(signal);
    const slot = this.#free.pop();
    if (slot !== undefined) return slot;
    const waiting = new Deferred<Slot>();
    const onAbort = () => waiting.reject(PantalaError.from(signal.reason));
    signal.addEventListener('abort', onAbort, { once: true });
    this.#waiting.push(waiting);
    try {
      return await waiting.promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  /** A slot for good, before anybody else wants one. */
  take(): Slot | undefined {
    return this.#free.pop();
  }

  release(slot: Slot): void {
    for (let next = this.#waiting.shift(); next !== undefined; next = this.#waiting.shift()) {
      if (next.settled) continue;
      next.resolve(slot);
      return;
    }
    this.#free.push(slot);
  }
}
