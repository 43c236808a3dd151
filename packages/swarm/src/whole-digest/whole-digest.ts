import { Worker } from 'node:worker_threads';
import { type ContentDigest, Deferred, PantalaError } from '@pantala/base';
import type { DataLease, StoredTask } from '@pantala/store';
import type { DigestCommand, DigestReport } from './messages.ts';

/** Bytes that a task must have grown by before the worker hears of it. */
const REPORT_STEP = 4 * 1024 * 1024;
/** Milliseconds without a job after which the worker is stopped: its heap is 8 MB. */
const IDLE_TIMEOUT = 30_000;

/** The digest of one task's whole content, taken while it arrives. */
export interface DigestJob extends Disposable {
  /** The first `end` bytes are on disk now. */
  extend(end: number): void;
  /** Lower-case hex, once `extend` has been called with the whole length. @throws `internal`; `cancelled` */
  readonly hex: Promise<string>;
}

/** Takes digests of whole contents on one other thread, which lives only while there is something to do. */
export class WholeDigests implements AsyncDisposable {
  readonly #jobs = new Map<number, { readonly result: Deferred<string>; readonly lease: DataLease }>();
  #worker: Worker | undefined;
  #idle: NodeJS.Timeout | undefined;
  #nextId = 1;

  begin(task: StoredTask, digest: ContentDigest): DigestJob {
    const id = this.#nextId++;
    const length = task.geometry.contentLength;
    const lease = task.lease();
    const result = new Deferred<string>();
    this.#jobs.set(id, { result, lease });
    let told = 0;
    return {
      hex: result.promise,
      extend: (end) => {
        if (!this.#jobs.has(id) || end <= told || (end < length && end - told < REPORT_STEP)) return;
        // A thread takes longer to start than a small read may take: what is only read here and there needs none.
        if (told === 0) this.#send({ kind: 'begin', id, fd: lease.fd, algorithm: digest.algorithm, length });
        told = end;
        this.#send({ kind: 'extend', id, end });
      },
      [Symbol.dispose]: () => {
        if (!this.#jobs.has(id)) return;
        result.reject(new PantalaError('cancelled', 'the digest is not wanted any more'));
        if (told > 0) return this.#send({ kind: 'drop', id });
        this.#jobs.delete(id);
        lease[Symbol.dispose]();
      },
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stop(new PantalaError('cancelled', 'the swarm has stopped'));
  }

  #send(command: DigestCommand): void {
    clearTimeout(this.#idle);
    this.#worker ??= this.#start();
    this.#worker.postMessage(command);
  }

  #start(): Worker {
    const worker = new Worker(new URL('./worker.ts', import.meta.url), { execArgv: [], stdin: false });
    worker.unref();
    worker.on('message', (report: DigestReport) => this.#received(report));
    worker.on('error', (error) => {
      if (this.#worker === worker) void this.#stop(PantalaError.from(error));
    });
    return worker;
  }

  #received(report: DigestReport): void {
    const job = this.#jobs.get(report.id);
    this.#jobs.delete(report.id);
    job?.lease[Symbol.dispose]();
    if (report.kind === 'digest') job?.result.resolve(report.hex);
    else if (report.kind === 'failed') job?.result.reject(new PantalaError('internal', report.message));
    if (this.#jobs.size > 0) return;
    this.#idle = setTimeout(() => void this.#stop(new PantalaError('cancelled', 'idle')), IDLE_TIMEOUT);
    this.#idle.unref();
  }

  async #stop(reason: PantalaError): Promise<void> {
    clearTimeout(this.#idle);
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
    for (const { result, lease } of this.#jobs.values()) {
      lease[Symbol.dispose]();
      result.reject(reason);
    }
    this.#jobs.clear();
  }
}
