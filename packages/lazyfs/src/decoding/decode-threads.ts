import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { type DecodeJob, type DecodeOutcome, decodeIntoFile } from './decode-job.ts';

/** Threads at most. One decodes some hundred megabytes a second, which is more than links bring. */
const MAX_THREADS = 4;
/** Milliseconds without a job after which a thread ends: its heap is freed when nothing is fetched. */
const IDLE_LIMIT = 10_000;

interface WaitingJob {
  /** Makes the job anew each time: its bytes go to the thread. */
  readonly make: () => DecodeJob;
  readonly isUrgent: () => boolean;
  readonly resolve: (outcome: DecodeOutcome) => void;
}

interface Member {
  readonly worker: Worker;
  job: WaitingJob | undefined;
  idle: NodeJS.Timeout | undefined;
}

/** Threads that decode, check and write chunks, so that the loop that answers readers never waits for it. */
export class DecodeThreads implements AsyncDisposable {
  readonly #limit: number;
  readonly #members = new Set<Member>();
  readonly #queue: WaitingJob[] = [];

  constructor(limit = Math.min(MAX_THREADS, Math.max(1, availableParallelism() - 1))) {
    this.#limit = limit;
  }

  /**
   * @param make called when its turn comes, again when a thread fails; the job's bytes must have memory of their own
   * @param isUrgent whether somebody waits for it, asked whenever a thread is free: such jobs come first
   */
  run(make: () => DecodeJob, isUrgent: () => boolean): Promise<DecodeOutcome> {
    const { promise, resolve } = Promise.withResolvers<DecodeOutcome>();
    this.#queue.push({ make, isUrgent, resolve });
    this.#assign();
    return promise;
  }

  #assign(): void {
    while (this.#queue.length > 0) {
      const free = [...this.#members].find(({ job }) => job === undefined) ?? this.#start();
      if (free === undefined) return;
      const urgent = this.#queue.findIndex(({ isUrgent }) => isUrgent());
      const [waiting] = this.#queue.splice(Math.max(0, urgent), 1) as [WaitingJob];
      clearTimeout(free.idle);
      free.job = waiting;
      free.worker.ref();
      const job = waiting.make();
      free.worker.postMessage(job, [job.stored.buffer as ArrayBuffer]);
    }
  }

  #start(): Member | undefined {
    if (this.#members.size >= this.#limit) return undefined;
    const worker = new Worker(new URL('./decode-worker.ts', import.meta.url), {
      name: 'decoding',
      // Contents lie outside of the heap; a small young generation keeps the process small.
      resourceLimits: { maxYoungGenerationSizeMb: 4 },
    });
    const member: Member = { worker, job: undefined, idle: undefined };
    this.#members.add(member);
    worker.on('message', (outcome: DecodeOutcome) => {
      member.job?.resolve(outcome);
      member.job = undefined;
      this.#assign();
      if (member.job === undefined) this.#rest(member);
    });
    worker.on('error', () => this.#lost(member));
    worker.on('exit', () => this.#lost(member));
    return member;
  }

  #rest(member: Member): void {
    member.worker.unref();
    member.idle = setTimeout(() => void this.#end(member), IDLE_LIMIT).unref();
  }

  /** What a thread left is done here: readers wait for it. */
  #lost(member: Member): void {
    this.#members.delete(member);
    clearTimeout(member.idle);
    const { job } = member;
    member.job = undefined;
    if (job !== undefined) job.resolve(decodeIntoFile(job.make()));
    this.#assign();
  }

  async #end(member: Member): Promise<void> {
    this.#members.delete(member);
    clearTimeout(member.idle);
    await member.worker.terminate();
  }

  /** To be called when no job is under way. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#members].map((member) => this.#end(member)));
  }
}
