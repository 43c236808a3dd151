import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { PantalaError } from '@pantala/base';
import { WakeUp } from '@pantala/linux';
import type { PendingTable } from './pending-table.ts';
import type { PumpOrder, PumpReport, PumpSettings, SharedBlob } from './pump-messages.ts';

/**
 * Milliseconds after which the threads but the first are started: whoever takes over from a dead worker is to answer
 * soon, and to start several costs one of few processors more than they bring by then.
 */
const MORE_THREADS_DELAY = 1000;

interface PumpWorker {
  readonly worker: Worker;
  readonly orders: Int32Array;
  readonly ended: Promise<unknown>;
}

export interface EventPumpOptions<E> {
  /** Of the threads. */
  readonly script: URL;
  /** Threads that read, one or more. */
  readonly threads: number;
  /** The descriptor that is read. */
  readonly source: number;
  readonly table: PendingTable;
  /** Called with events that the threads could not answer by themselves. */
  readonly onEvents: (events: readonly E[]) => void;
  /** Called some time after a thread has answered a read of a blob that was shared. */
  readonly onHit: (number: number, offset: number, count: number) => void;
  /** Called when a thread cannot go on; readers wait until another worker takes over. */
  readonly onFailure: (error: PantalaError) => void;
}

/**
 * Threads that wait for the kernel's events: each is in the table before anybody else sees it, unless everything is
 * there that it asks for; then the thread answers it. Threads of their own, for a read that waits in libuv's pool would
 * keep the process from ending.
 */
export class EventPump<E> implements AsyncDisposable {
  readonly #wakeUp = new WakeUp();
  readonly #threads: PumpWorker[];
  /** What threads know that are started now. */
  readonly #shared = new Map<string, SharedBlob>();
  readonly #moreThreads: NodeJS.Timeout;
  readonly #options: EventPumpOptions<E>;
  readonly #onExit = (): void => this.#wakeUp.wake();
  #stopping = false;

  constructor(options: EventPumpOptions<E>) {
    this.#options = options;
    this.#threads = [this.#start(0)];
    this.#moreThreads = setTimeout(() => {
      while (this.#threads.length < options.threads) this.#threads.push(this.#start(this.#threads.length));
    }, MORE_THREADS_DELAY);
    this.#moreThreads.unref();
    // The end of the process waits for the threads, and these for the kernel.
    process.on('exit', this.#onExit);
  }

  #start(index: number): PumpWorker {
    const { script, source, table, threads, onEvents, onHit } = this.#options;
    const orders = new Int32Array(new SharedArrayBuffer(4));
    const workerData: PumpSettings = {
      source,
      wakeUp: this.#wakeUp.fd,
      table: table.fd,
      index,
      threads,
      orders: orders.buffer,
    };
    const worker = new Worker(script, { workerData, execArgv: [], stdin: false, trackUnmanagedFds: false });
    worker.on('message', (report: PumpReport<E>) => {
      if (report.kind === 'events') onEvents(report.events);
      else if (report.kind === 'hits') eachHit(report.hits, onHit);
      else this.#failed(report.message);
    });
    worker.on('error', (error) => this.#failed(PantalaError.from(error).message));
    worker.once('exit', () => this.#failed('it ended'));
    const started = { worker, orders, ended: once(worker, 'exit') };
    for (const blob of this.#shared.values()) order(started, { kind: 'share', blob });
    return started;
  }

  #failed(message: string): void {
    if (!this.#stopping) {
      this.#options.onFailure(new PantalaError('internal', `the thread that reads events: ${message}`));
    }
  }

  /** From now on threads may answer reads of a blob. */
  share(blob: SharedBlob): void {
    this.#shared.set(blob.key, blob);
    for (const thread of this.#threads) order(thread, { kind: 'share', blob });
  }

  forget(key: string): void {
    this.#shared.delete(key);
    for (const thread of this.#threads) order(thread, { kind: 'forget', key });
  }

  /** Has the threads end; what they have taken from the kernel is answered or in the table. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#moreThreads);
    process.off('exit', this.#onExit);
    this.#wakeUp.wake();
    await Promise.all(this.#threads.map(({ ended }) => ended));
    this.#wakeUp[Symbol.dispose]();
  }
}

/** A thread that waits for the kernel sees no messages: it looks for them when there are more than it has seen. */
function order({ worker, orders }: PumpWorker, message: PumpOrder): void {
  worker.postMessage(message);
  Atomics.add(orders, 0, 1);
}

function eachHit(hits: Float64Array, onHit: (number: number, offset: number, count: number) => void): void {
  for (let at = 0; at < hits.length; at += 3) {
    onHit(hits[at] as number, hits[at + 1] as number, hits[at + 2] as number);
  }
}
