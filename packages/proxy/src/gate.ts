import { createHash, timingSafeEqual } from 'node:crypto';
import { Semaphore, TokenBucket, unlimited } from '@pantala/base';
import type { CompiledOptions } from './options.ts';

/** Decides who may use the proxy, how much at once, and what for. */
export class Gate {
  readonly #credentials: Buffer | undefined;
  readonly #whiteList: CompiledOptions['whiteList'];
  readonly #rate;
  readonly #concurrency: Semaphore | undefined;

  constructor(options: CompiledOptions) {
    const { basicAuth, requestRateLimit, maxConcurrency } = options;
    this.#credentials = basicAuth && digest(`${basicAuth.username}:${basicAuth.password}`);
    this.#whiteList = options.whiteList;
    this.#rate =
      requestRateLimit === undefined
        ? unlimited
        : new TokenBucket({ rate: requestRateLimit, burst: Math.max(1, requestRateLimit) });
    this.#concurrency = maxConcurrency === undefined ? undefined : new Semaphore(maxConcurrency);
  }

  /** Whether `Proxy-Authorization` has the configured user and password (in constant time); true without any. */
  knows(proxyAuthorization: string | undefined): boolean {
    if (this.#credentials === undefined) return true;
    const encoded = /^\s*basic\s+([A-Za-z0-9+/=]+)\s*$/i.exec(proxyAuthorization ?? '')?.[1] ?? '';
    return timingSafeEqual(digest(Buffer.from(encoded, 'base64')), this.#credentials);
  }

  allows(hostname: string, port: number): boolean {
    if (this.#whiteList === undefined) return true;
    const name = hostname.toLowerCase();
    return this.#whiteList.some(
      (entry) =>
        (entry.host === name || entry.pattern?.test(name) === true) &&
        (entry.ports.length === 0 || entry.ports.includes(port)),
    );
  }

  /** A place for one request, to be given back; undefined when it comes too soon or beside too many. */
  admit(): Disposable | undefined {
    if (!this.#rate.tryAcquire(1)) return undefined;
    return this.#concurrency === undefined ? NOTHING : this.#concurrency.tryAcquire();
  }
}

const NOTHING: Disposable = { [Symbol.dispose]() {} };

function digest(text: string | Buffer): Buffer {
  return createHash('sha256').update(text).digest();
}
