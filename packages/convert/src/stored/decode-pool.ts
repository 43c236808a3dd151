import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { PantalaError } from '@pantala/base';
import { threadEnvironment } from '../build/thread-environment.ts';
import { type DecodeJob, type DecodeOutcome, decodeJob } from './decode-job.ts';
import type { WorkerAnswer } from './decode-worker.ts';

/** Threads beyond which decoding is no longer what one waits for. */
const MAX_THREADS = 8;

interface Waiting {
  readonly resolve: (outcome: DecodeOutcome) => void;
  readonly reject: (error: PantalaError) => void;
}

/** A thread with one job at a time. */
class Decoder {
  readonly #worker: Worker;
  #waiting: Waiting | undefined;

  constructor() {
    this.#worker = new Worker(new URL('./decode-worker.ts', import.meta.url), {
      execArgv: [],
      env: threadEnvironment(),
    });
    this.#worker.on('message', (answer: WorkerAnswer) => {
      const waiting = this.#waiting;
      this.#waiting = undefined;
      if ('outcome' in answer) waiting?.resolve(answer.outcome);
      else waiting?.reject(new PantalaError(answer.failure.code, answer.failure.message));
    });
    this.#worker.on('error', (error) => this.#waiting?.reject(PantalaError.from(error)));
  }

  run(job: DecodeJob): Promise<DecodeOutcome> {
    const { promise, resolve, reject } = Promise.withResolvers<DecodeOutcome>();
    this.#waiting = { resolve, reject };
    // Bytes that have their memory for themselves change hands; a part of something larger is copied.
    const { buffer, byteLength } = job.stored;
    const isWhole = buffer instanceof ArrayBuffer && buffer.byteLength === byteLength;
    this.#worker.postMessage(job, isWhole ? [buffer] : []);
    return promise;
  }

  async end(): Promise<void> {
    await this.#worker.terminate();
  }
}

/** Decodes groups of chunks on several threads; on this one where there is but one processor. */
export class DecodePool implements AsyncDisposable {
  readonly #decoders: Decoder[] = [];
  readonly #free: Decoder[] = [];
  readonly #threads: number;
  readonly #queue: ((decoder: Decoder) => void)[] = [];

  /** @throws `invalid-argument` */
  constructor(threads = Math.min(availableParallelism(), MAX_THREADS)) {
    if (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS)
      throw new PantalaError('invalid-argument', `${threads} threads: give 1 to ${MAX_THREADS}`);
    this.#threads = threads;
  }

  /**
   * Resolves at once when a thread is free, so that a caller who waits for it never has more jobs than threads.
   *
   * @returns what becomes of the job
   * @throws what decoding or writing throws, but damage, which the outcome has
   */
  async start(job: DecodeJob): Promise<{ readonly outcome: Promise<DecodeOutcome> }> {
    if (this.#threads < 2) return { outcome: Promise.resolve(decodeJob(job)) };
    const decoder = await this.#take();
    const outcome = decoder.run(job).finally(() => this.#give(decoder));
    return { outcome };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#decoders.map((decoder) => decoder.end()));
  }

  async #take(): Promise<Decoder> {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    if (this.#decoders.length < this.#threads) {
      const decoder = new Decoder();
      this.#decoders.push(decoder);
      return decoder;
    }
    const { promise, resolve } = Promise.withResolvers<Decoder>();
    this.#queue.push(resolve);
    return promise;
  }

  #give(decoder: Decoder): void {
    const next = this.#queue.shift();
    if (next === undefined) this.#free.push(decoder);
    else next(decoder);
  }
}
