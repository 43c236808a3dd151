import { Worker } from 'node:worker_threads';
import { Deferred, type ErrorCode, PantalaError } from '@pantala/base';
import type { Job, JobEnd, JobRequest, WorkerSetup } from './parcel.ts';
import { threadEnvironment } from './thread-environment.ts';

/** Jobs that a worker has at once: it finds the next one when it has ended one. */
const JOBS_AHEAD = 2;

interface Member {
  readonly worker: Worker;
  /** Jobs that it has not ended. */
  jobs: number;
}

/** Threads that digest and compress. They start when there is work for them. */
export class WorkerPool implements AsyncDisposable {
  readonly #limit: number;
  readonly #setup: WorkerSetup;
  readonly #members: Member[] = [];
  readonly #ends = new Map<number, Deferred>();
  readonly #waiting: JobRequest[] = [];
  #jobs = 0;
  #failure: PantalaError | undefined;
  #disposed = false;

  /** @param limit threads at most */
  constructor(limit: number, setup: WorkerSetup) {
    this.#limit = limit;
    this.#setup = setup;
  }

  /**
   * Resolves when a worker has done the job; the result lies in the slot.
   *
   * @param first before all that wait
   * @throws what the worker met
   */
  run(job: Job, first = false): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const end = new Deferred();
    const request = { id: this.#jobs++, job };
    this.#ends.set(request.id, end);
    if (first) this.#waiting.unshift(request);
    else this.#waiting.push(request);
    this.#assign();
    return end.promise;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#disposed = true;
    await Promise.all(this.#members.map(({ worker }) => worker.terminate()));
    this.#fail(new PantalaError('cancelled', 'the workers have been stopped'));
  }

  #start(): Member {
    const worker = new Worker(new URL('./chunk-worker.ts', import.meta.url), {
      workerData: this.#setup,
      name: 'chunks',
      env: threadEnvironment(),
      // Their content lies outside of the heap; a small young generation keeps the process small.
      resourceLimits: { maxYoungGenerationSizeMb: 4 },
    });
    const member: Member = { worker, jobs: 0 };
    worker.on('message', (end: JobEnd) => {
      member.jobs -= 1;
      this.#ended(end);
      this.#assign();
    });
    worker.on('error', (error) => this.#fail(PantalaError.from(error)));
    worker.on('exit', (code) => {
      if (!this.#disposed) this.#fail(new PantalaError('internal', `a worker stopped with status ${code}`));
    });
    return member;
  }

  #ended({ id, error }: JobEnd): void {
    const end = this.#ends.get(id);
    this.#ends.delete(id);
    if (error === undefined) end?.resolve();
    else end?.reject(new PantalaError(error.code as ErrorCode, error.message));
  }

  #assign(): void {
    while (this.#waiting.length > 0) {
      const member = this.#leastBusy();
      if (member.jobs >= JOBS_AHEAD) return;
      member.jobs += 1;
      member.worker.postMessage(this.#waiting.shift());
    }
  }

  #leastBusy(): Member {
    const idle = this.#members.find(({ jobs }) => jobs === 0);
    if (idle !== undefined) return idle;
    if (this.#members.length < this.#limit) {
      const started = this.#start();
      this.#members.push(started);
      return started;
    }
    return this.#members.reduce((least, other) => (other.jobs < least.jobs ? other : least));
  }

  #fail(error: PantalaError): void {
    this.#failure ??= error;
    for (const end of this.#ends.values()) end.reject(error);
    this.#ends.clear();
  }
}
