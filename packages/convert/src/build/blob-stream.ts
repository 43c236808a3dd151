import { Worker } from 'node:worker_threads';
import { Deferred, PantalaError } from '@pantala/base';
import { threadEnvironment } from './thread-environment.ts';

/** Bytes that come next, and the file that they are written to, if they are. */
export interface StreamParts {
  readonly kind: 'parts';
  readonly parts: readonly Uint8Array[];
  readonly descriptor: number | undefined;
}

/** Bytes; a question for the digest of all that came so far; or another blob begins, which has no answer. */
export type StreamRequest = StreamParts | { readonly kind: 'digest' } | { readonly kind: 'restart' };

/** An error of the system comes field by field: threads lose its code. */
export interface StreamAnswer {
  readonly digest?: Uint8Array;
  readonly error?: { readonly message: string; readonly code: string | undefined };
}

/**
 * Takes the SHA-256 of a blob and writes it, in a thread of its own: both need every byte in order, and whoever orders
 * chunks has no time for that. Written right after they were digested, bytes are still in the processor's cache: to
 * write them on another thread costs several times as much.
 */
export class BlobStream implements AsyncDisposable {
  readonly #worker: Worker;
  /** Answers come in the order of the requests. */
  readonly #answers: Deferred<StreamAnswer>[] = [];
  #failure: PantalaError | undefined;

  constructor() {
    this.#worker = new Worker(new URL('./blob-stream-worker.ts', import.meta.url), {
      name: 'blob stream',
      env: threadEnvironment(),
      resourceLimits: { maxYoungGenerationSizeMb: 2 },
    });
    this.#worker.on('message', (answer: StreamAnswer) => this.#answered(answer));
    this.#worker.on('error', (error) => this.#fail(PantalaError.from(error)));
    this.#worker.on('exit', () => this.#fail(new PantalaError('internal', 'the thread that writes the blob stopped')));
  }

  /**
   * Resolves when nothing needs the bytes any more, which are best in shared memory.
   *
   * @param descriptor of a file, at whose position they are written; none: they are only digested
   * @throws what writing throws
   */
  async add(parts: readonly Uint8Array[], descriptor?: number): Promise<void> {
    await this.#ask({ kind: 'parts', parts, descriptor });
  }

  /** Digest of all that was given before: 32 bytes. */
  async digest(): Promise<Buffer> {
    return Buffer.from((await this.#ask({ kind: 'digest' })).digest ?? []);
  }

  /** What comes next is another blob. */
  restart(): void {
    this.#worker.postMessage({ kind: 'restart' } satisfies StreamRequest);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }

  #ask(request: StreamRequest): Promise<StreamAnswer> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    const answer = new Deferred<StreamAnswer>();
    this.#answers.push(answer);
    this.#worker.postMessage(request);
    return answer.promise;
  }

  #answered(answer: StreamAnswer): void {
    const waiting = this.#answers.shift();
    const { error } = answer;
    if (error === undefined) waiting?.resolve(answer);
    else waiting?.reject(PantalaError.from(Object.assign(new Error(error.message), { code: error.code })));
  }

  #fail(error: PantalaError): void {
    this.#failure ??= error;
    for (const answer of this.#answers.splice(0)) answer.reject(error);
  }
}
