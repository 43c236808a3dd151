import { type PantalaError, sleep } from '@pantala/base';
import type { LazyBlob } from '../contract.ts';
import { EventPump } from './event-pump.ts';
import type { PendingTable } from './pending-table.ts';
import type { SharedBlob } from './pump-messages.ts';

export interface AnsweringOptions<E> {
  /** Of the threads that read events. */
  readonly script: URL;
  readonly threads: number;
  /** The descriptor that is read. */
  readonly source: number;
  readonly table: PendingTable;
  /** Answers one event; never rejects. Touches nothing of it any more once `isOver`. */
  readonly serve: (event: E) => Promise<void>;
  readonly onFailure: (error: PantalaError) => void;
}

/** Milliseconds for reads in flight when this worker gives way. */
const LAST_ANSWERS = 100;

interface Sharing {
  readonly blob: LazyBlob;
  readonly shared: SharedBlob;
}

/** The life of a driver's answers: from when events are taken to when this worker gives way to another. */
export class Answering<E> {
  readonly #options: AnsweringOptions<E>;
  readonly #inFlight = new Set<Promise<void>>();
  /** Blobs of which threads answer reads, by the key of their events. */
  readonly #shared = new Map<string, Sharing>();
  readonly #byNumber = new Map<number, LazyBlob>();
  #pump: EventPump<E> | undefined;
  #blobs = 0;
  #isOver = false;

  constructor(options: AnsweringOptions<E>) {
    this.#options = options;
  }

  get begun(): boolean {
    return this.#pump !== undefined;
  }

  /** Whether everything that is unanswered is the next worker's. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Begins to take events. */
  begin(): void {
    const { serve } = this.#options;
    this.#pump = new EventPump<E>({
      ...this.#options,
      onEvents: (events) => {
        for (const event of events) void this.track(serve(event));
      },
      onHit: (number, offset, count) => {
        const blob = this.#byNumber.get(number);
        const end = Math.min(offset + count, blob?.size ?? 0);
        if (offset < end) blob?.countHit({ start: offset, end });
      },
    });
    for (const { shared } of this.#shared.values()) this.#pump.share(shared);
  }

  /** Waits for an answer before this worker gives way. */
  async track(answer: Promise<void>): Promise<void> {
    this.#inFlight.add(answer);
    try {
      await answer;
    } finally {
      this.#inFlight.delete(answer);
    }
  }

  /** Has the threads answer what is there of a blob. @param key by which events name it */
  share(key: string, blob: LazyBlob): void {
    const known = this.#shared.get(key);
    if (known?.shared.blocks === blob.blocks.memory) return;
    if (known !== undefined) this.forget(key);
    const number = this.#blobs++;
    const shared = { number, key, path: blob.path, size: blob.size, blocks: blob.blocks.memory };
    this.#shared.set(key, { blob, shared });
    this.#byNumber.set(number, blob);
    this.#pump?.share(shared);
  }

  forget(key: string): void {
    const known = this.#shared.get(key);
    if (known === undefined) return;
    this.#shared.delete(key);
    this.#byNumber.delete(known.shared.number);
    this.#pump?.forget(key);
  }

  /** Stops taking events and waits for those in flight; what comes then waits for the next worker. */
  async pause(): Promise<void> {
    const pump = this.#pump;
    this.#pump = undefined;
    await pump?.[Symbol.asyncDispose]();
    // Whoever waits for longer is answered by the next worker: from here on this one touches nothing of it.
    await Promise.race([Promise.allSettled(this.#inFlight), sleep(LAST_ANSWERS)]);
    this.#isOver = true;
  }
}
