import { Worker } from 'node:worker_threads';
import { Deferred, PantalaError } from '@pantala/base';
import { WakeUp } from '@pantala/linux';
import type { PendingTable } from './pending-table.ts';

/** What a thread that reads events is told. Descriptors are the process's own. */
export interface PumpSettings {
  readonly source: number;
  readonly wakeUp: number;
  readonly table: number;
}

/** What the thread tells. */
export type PumpReport<E> =
  | { readonly kind: 'events'; readonly events: readonly E[] }
  | { readonly kind: 'failed'; readonly message: string };

/**
 * A thread that waits for the kernel's events and notes each in the table before anybody sees it. A thread of its own,
 * for a read that waits in libuv's pool would keep the process from ending.
 */
export class EventPump<E> implements AsyncDisposable {
  readonly #wakeUp = new WakeUp();
  readonly #thread: Worker;
  readonly #ended = new Deferred();
  readonly #onExit = (): void => this.#wakeUp.wake();
  #stopping = false;

  /**
   * @param script of the thread
   * @param onEvents called with the events of one read
   * @param onFailure called when the thread cannot go on; readers wait until another takes over
   */
  constructor(
    script: URL,
    source: number,
    table: PendingTable,
    onEvents: (events: readonly E[]) => void,
    onFailure: (error: PantalaError) => void,
  ) {
    const settings: PumpSettings = { source, wakeUp: this.#wakeUp.fd, table: table.fd };
    this.#thread = new Worker(script, { workerData: settings, execArgv: [], stdin: false, trackUnmanagedFds: false });
    const failed = (message: string) => {
      if (!this.#stopping) onFailure(new PantalaError('internal', `the thread that reads events: ${message}`));
    };
    this.#thread.on('message', (report: PumpReport<E>) => {
      if (report.kind === 'events') onEvents(report.events);
      else failed(report.message);
    });
    this.#thread.on('error', (error) => failed(PantalaError.from(error).message));
    this.#thread.once('exit', () => {
      failed('it ended');
      this.#ended.resolve();
    });
    // The end of the process waits for the thread, and the thread for the kernel.
    process.on('exit', this.#onExit);
  }

  /** Has the thread end; what it has taken from the kernel is in the table. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    process.off('exit', this.#onExit);
    this.#wakeUp.wake();
    await this.#ended.promise;
    this.#wakeUp[Symbol.dispose]();
  }
}
