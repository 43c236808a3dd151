import { Backoff, PantalaError, sleep } from '@pantala/base';
import type { HttpResponse } from './http-client.ts';
import type { CompiledOriginOptions } from './options.ts';

/** Statuses that another attempt may change. */
const PASSING: ReadonlySet<number> = new Set([429, 500, 502, 503, 504]);

/** First and longest pause between attempts without a `Retry-After`, in milliseconds. */
const FIRST_PAUSE = 200;
const LONGEST_PAUSE = 5_000;

/**
 * Asks until an answer is there that another attempt would not better, or the attempts are used up: then the last
 * answer or error counts. `Retry-After` is waited for as told, up to the limit; beyond it the answer is given at once.
 */
export async function withRetries(
  options: Pick<CompiledOriginOptions, 'attempts' | 'maxRetryAfter'>,
  signal: AbortSignal | undefined,
  ask: () => Promise<HttpResponse>,
): Promise<HttpResponse> {
  const backoff = new Backoff({ initial: FIRST_PAUSE, limit: LONGEST_PAUSE });
  for (let attempt = 1; ; attempt++) {
    let pause: number;
    try {
      const response = await ask();
      const { status, headers } = response.head;
      if (!PASSING.has(status) || attempt >= options.attempts) return response;
      const told = retryAfter(headers['retry-after'], Date.now());
      if (told !== undefined && told > options.maxRetryAfter) return response;
      await response[Symbol.asyncDispose]();
      pause = told ?? backoff.next();
    } catch (error) {
      if (attempt >= options.attempts || PantalaError.from(error).code !== 'unavailable') throw error;
      pause = backoff.next();
    }
    await sleep(pause, signal);
  }
}

/** Milliseconds that a `Retry-After` tells (RFC 9110 §10.2.3); undefined without a valid one. */
export function retryAfter(value: string | undefined, now: number): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1000;
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}
