import { closeSync, openSync } from 'node:fs';
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { pollReadable, ReadableSet } from '@pantala/linux';
import { FilledBlocks } from '../filled-blocks.ts';
import { PendingTable } from './pending-table.ts';
import type { PumpOrder, PumpReport, PumpSettings, SharedBlob } from './pump-messages.ts';

/** Milliseconds after which the thread looks whether it is to end, were its wake-up lost. */
const LONGEST_WAIT = 1000;
/** Milliseconds to wait for room in the table. */
const FULL_WAIT = 5;
/** Hits that are told at once, and milliseconds of silence after which fewer are. */
const MAX_HITS = 512;
const HITS_WAIT = 20;

/** A blob as a thread has it. */
export interface ThreadBlob {
  readonly number: number;
  readonly size: number;
  readonly blocks: FilledBlocks;
  /**
   * Open on its cache file, or -1: of this thread alone, for a number that another one closes may come to mean another
   * file.
   */
  readonly file: number;
}

/** What every thread has that takes events from the kernel. */
export class PumpThread<E> {
  readonly source: number;
  readonly table: PendingTable;
  /** Where this thread has the kernel write. */
  readonly intake: Uint8Array;
  /** Threads that read from the same source. */
  readonly threads: number;
  readonly #needsFiles: boolean;
  readonly #port: NonNullable<typeof parentPort>;
  readonly #wakeUp: number;
  readonly #orders: Int32Array;
  readonly #blobs = new Map<string, ThreadBlob>();
  #done = 0;
  #hits: number[] = [];

  /** @param options.needsFiles whether it reads the cache files of blobs */
  constructor({ needsFiles }: { readonly needsFiles: boolean }) {
    if (parentPort === null) throw new Error('this module runs as a worker thread only');
    const { source, wakeUp, table, index, threads, orders } = workerData as PumpSettings;
    this.#needsFiles = needsFiles;
    this.threads = threads;
    this.#port = parentPort;
    this.source = source;
    this.#wakeUp = wakeUp;
    this.table = new PendingTable(table, index);
    this.intake = this.table.intakeOf(index);
    this.#orders = new Int32Array(orders);
  }

  report(events: readonly E[]): void {
    this.#tell({ kind: 'events', events });
  }

  fail(message: string): void {
    this.#tell({ kind: 'failed', message });
  }

  #tell(message: PumpReport<E>): void {
    this.#port.postMessage(message);
  }

  /** The blob that an event is about, when all bytes are there that it asks for; they may reach beyond its end. */
  holder(key: string, offset: number, count: number): ThreadBlob | undefined {
    this.#follow();
    const blob = this.#blobs.get(key);
    if (blob === undefined) return undefined;
    const range = { start: Math.min(offset, blob.size), end: Math.min(offset + count, blob.size) };
    return blob.blocks.has(range) ? blob : undefined;
  }

  /** A read was answered; it is counted when there is time. */
  hit({ number }: ThreadBlob, offset: number, count: number): void {
    this.#hits.push(number, offset, count);
    if (this.#hits.length >= MAX_HITS * 3) this.#tellHits();
  }

  #tellHits(): void {
    if (this.#hits.length === 0) return;
    this.#tell({ kind: 'hits', hits: Float64Array.from(this.#hits) });
    this.#hits = [];
  }

  /** Does what it was told meanwhile. */
  #follow(): void {
    for (const given = Atomics.load(this.#orders, 0); this.#done < given; this.#done++) {
      const order = receiveMessageOnPort(this.#port)?.message as PumpOrder | undefined;
      if (order === undefined) return;
      if (order.kind === 'share') this.#share(order.blob);
      else this.#forget(order.key);
    }
  }

  #share({ key, number, size, path, blocks }: SharedBlob): void {
    this.#forget(key);
    try {
      const file = this.#needsFiles ? openSync(path, 'r') : -1;
      this.#blobs.set(key, { number, size, blocks: new FilledBlocks(blocks), file });
    } catch {
      // Its reads are answered by the main thread.
    }
  }

  #forget(key: string): void {
    const known = this.#blobs.get(key);
    if (known === undefined) return;
    this.#blobs.delete(key);
    if (known.file >= 0) closeSync(known.file);
  }

  /**
   * Takes events until the thread is told to end.
   *
   * @param take takes what waits in the kernel, without waiting; false when the table had no room for it
   */
  run(take: () => boolean): void {
    try {
      using set = new ReadableSet([this.source], [this.#wakeUp]);
      for (;;) {
        const ready = set.wait(this.#hits.length > 0 ? HITS_WAIT : LONGEST_WAIT);
        if (ready.includes(this.#wakeUp)) break;
        if (ready.length === 0) this.#tellHits();
        // A table that is full has the kernel's events wait; only the order to end is listened to.
        while (ready.length > 0 && !take()) if (pollReadable([this.#wakeUp], FULL_WAIT)[0] !== 0) return;
      }
      this.#tellHits();
    } catch (error) {
      this.fail(error instanceof Error ? error.message : String(error));
    }
  }
}
