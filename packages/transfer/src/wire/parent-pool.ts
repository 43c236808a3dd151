import { type Logger, PantalaError, type RateLimiter, SingleFlight, TokenBucket } from '@pantala/base';
import { ArenaPool } from './arena.ts';
import type { ParentAddress, ParentConnection } from './contract.ts';
import { compilePoolOptions, type ParentPoolOptions } from './options.ts';
import { connectParent } from './parent-connection.ts';

export interface ParentPoolDeps {
  readonly logger: Logger;
  /** Every byte received from parents is paid here; reading pauses until it is granted. */
  readonly downloadLimiter?: RateLimiter;
}

/** One kept connection to each Pantala parent, opened when it is first needed and again after it broke. */
export class ParentPool implements AsyncDisposable {
  readonly #options: Required<ParentPoolOptions>;
  readonly #deps: ParentPoolDeps;
  readonly #arenas = new ArenaPool();
  readonly #connections = new Map<string, ParentConnection>();
  readonly #opening = new SingleFlight<string, ParentConnection>();
  #closed = false;

  constructor(options: ParentPoolOptions, deps: ParentPoolDeps) {
    this.#options = compilePoolOptions(options);
    this.#deps = deps;
  }

  /** Connections that are open and usable. */
  get size(): number {
    this.#prune();
    return this.#connections.size;
  }

  /**
   * The connection to a parent. It belongs to the pool: callers do not dispose it.
   *
   * @throws `unavailable` when nobody answers there; `deadline-exceeded`; `cancelled`
   */
  async connection(address: ParentAddress, signal?: AbortSignal): Promise<ParentConnection> {
    const key = `${address.host}:${address.port}`;
    const held = this.#connections.get(key);
    if (held?.usable === true) return held;
    return await this.#opening.run(key, signal, async (flightSignal) => {
      if (this.#closed) throw new PantalaError('cancelled', 'the pool of parents is closed');
      const { logger } = this.#deps;
      const opened = await connectParent(
        address,
        this.#options,
        { arenas: this.#arenas, limiter: this.#connectionLimiter(), logger },
        flightSignal,
      );
      this.#prune();
      if (this.#closed) {
        await opened[Symbol.asyncDispose]();
        throw new PantalaError('cancelled', 'the pool of parents is closed');
      }
      this.#connections.set(key, opened);
      return opened;
    });
  }

  /** Cuts the connection to a parent that proved bad. */
  async drop(address: ParentAddress): Promise<void> {
    const key = `${address.host}:${address.port}`;
    const held = this.#connections.get(key);
    this.#connections.delete(key);
    await held?.[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    const connections = Array.from(this.#connections.values());
    this.#connections.clear();
    await Promise.all(connections.map((connection) => connection[Symbol.asyncDispose]()));
  }

  #connectionLimiter(): RateLimiter | undefined {
    const { connectionRate: rate } = this.#options;
    const { downloadLimiter: parent } = this.#deps;
    if (rate === Number.POSITIVE_INFINITY) return parent;
    return new TokenBucket({ rate, ...(parent === undefined ? {} : { parent }) });
  }

  /** Lets go of connections that broke or were idle for long. */
  #prune(): void {
    for (const [key, connection] of this.#connections) if (!connection.usable) this.#connections.delete(key);
  }
}
