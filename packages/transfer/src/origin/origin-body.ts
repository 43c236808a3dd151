import { type ByteRange, lengthOf, PantalaError, type RateLimiter } from '@pantala/base';
import type { OriginBody } from './contract.ts';
import type { HttpResponse } from './http-client.ts';

export interface OpenBodyOptions {
  readonly response: HttpResponse;
  /** Bytes that are passed on; the end is infinite where the length is not known. */
  readonly range: ByteRange;
  readonly contentLength: number | undefined;
  /** Bytes of the answer before the range. */
  readonly skip: number;
  readonly limiter: RateLimiter;
  readonly signal: AbortSignal | undefined;
}

/** The body of an answer, cut to what was asked for. */
export class OpenBody implements OriginBody {
  readonly range: ByteRange;
  readonly contentLength: number | undefined;
  readonly headers: Readonly<Record<string, string>>;
  readonly chunks: AsyncIterable<Buffer>;
  readonly #response: HttpResponse;

  constructor(options: OpenBodyOptions) {
    this.range = options.range;
    this.contentLength = options.contentLength;
    this.headers = options.response.head.headers;
    this.#response = options.response;
    this.chunks = read(options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#response[Symbol.asyncDispose]();
  }
}

async function* read(options: OpenBodyOptions): AsyncGenerator<Buffer> {
  const { response, range, limiter, signal } = options;
  try {
    let skip = options.skip;
    let left = lengthOf(range);
    while (left > 0) {
      const bytes = await response.read();
      if (bytes === undefined) break;
      if (!limiter.tryAcquire(bytes.length)) await limiter.acquire(bytes.length, signal);
      const start = Math.min(skip, bytes.length);
      skip -= start;
      const part = bytes.subarray(start, Math.min(bytes.length, start + left));
      if (part.length === 0) continue;
      left -= part.length;
      yield part;
    }
    if (left > 0 && Number.isFinite(left)) {
      throw new PantalaError('origin', `the body of the answer ended ${left} bytes early`);
    }
  } finally {
    await response[Symbol.asyncDispose]();
  }
}
