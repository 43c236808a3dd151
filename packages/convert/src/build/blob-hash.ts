import { Worker } from 'node:worker_threads';
import { Deferred, PantalaError } from '@pantala/base';

/** Bytes that come next; a question for the digest of all that came so far; or another blob begins, without an answer. */
export type HashRequest = readonly Uint8Array[] | 'copy' | 'restart';

/**
 * SHA-256 of a blob as it is written, in a thread of its own: it has to see every byte in order, and whoever orders
 * chunks has no time for that.
 */
export class BlobHash implements AsyncDisposable {
  readonly #worker: Worker;
  /** Answers come in the order of the requests. */
  readonly #answers: Deferred<Uint8Array | undefined>[] = [];
  #failure: PantalaError | undefined;

  constructor() {
    this.#worker = new Worker(new URL('./hash-worker.ts', import.meta.url), {
      name: 'blob hash',
      resourceLimits: { maxYoungGenerationSizeMb: 2 },
    });
    this.#worker.on('message', (answer: Uint8Array | undefined) => this.#answers.shift()?.resolve(answer));
    this.#worker.on('error', (error) => this.#fail(PantalaError.from(error)));
    this.#worker.on('exit', () => this.#fail(new PantalaError('internal', 'the thread that digests the blob stopped')));
  }

  /** Resolves when the bytes, which are best in shared memory, have been read. */
  async update(parts: readonly Uint8Array[]): Promise<void> {
    await this.#ask(parts);
  }

  /** Digest of all that was given before: 32 bytes. */
  async digest(): Promise<Buffer> {
    return Buffer.from((await this.#ask('copy')) ?? []);
  }

  /** What comes next is another blob. */
  restart(): void {
    this.#worker.postMessage('restart' satisfies HashRequest);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }

  #ask(request: Exclude<HashRequest, 'restart'>): Promise<Uint8Array | undefined> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const answer = new Deferred<Uint8Array | undefined>();
    this.#answers.push(answer);
    this.#worker.postMessage(request);
    return answer.promise;
  }

  #fail(error: PantalaError): void {
    this.#failure ??= error;
    for (const answer of this.#answers.splice(0)) answer.reject(error);
  }
}
