import { PantalaError } from '@pantala/base';
import { MAX_QUEUED_MESSAGES } from './limits.ts';

/**
 * Messages for a stream, from whoever has something to say: what a caller hands to a client- or bidirectional
 * streaming call, or a handler yields. Read by one reader, once.
 */
export class MessageQueue<T> implements AsyncIterable<T> {
  #messages: T[] = [];
  #ended = false;
  #failure: unknown;
  #wake: (() => void) | undefined;

  get length(): number {
    return this.#messages.length;
  }

  get ended(): boolean {
    return this.#ended;
  }

  /**
   * A message after the end is dropped: the stream that it was for is gone.
   *
   * @throws `resource-exhausted` when the reader is MAX_QUEUED_MESSAGES behind
   */
  push(message: T): void {
    if (this.#ended) return;
    if (this.#messages.length >= MAX_QUEUED_MESSAGES) {
      throw new PantalaError('resource-exhausted', `the receiver is ${MAX_QUEUED_MESSAGES} messages behind`);
    }
    this.#messages.push(message);
    this.#wake?.();
  }

  /** The reader gets what was pushed before, then the end. */
  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  /** The reader gets what was pushed before, then `reason` as an error. */
  fail(reason: unknown): void {
    this.#failure ??= reason;
    this.end();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    try {
      while (true) {
        const messages = this.#messages;
        this.#messages = [];
        yield* messages;
        if (this.#messages.length > 0) continue;
        if (this.#failure !== undefined) throw this.#failure;
        if (this.#ended) return;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
      }
    } finally {
      this.#ended = true;
      this.#messages = [];
    }
  }
}
