import { setMaxListeners } from 'node:events';
import { AbortScope, PantalaError, Semaphore } from '@pantala/base';
import type { BodyReader } from './body-reader.ts';
import type { Connector } from './connector.ts';
import { HttpConnection, type HttpRequest } from './http-connection.ts';
import type { OriginMetrics } from './metrics.ts';
import { type CompiledOriginOptions, MAX_IDLE_PER_HOST } from './options.ts';
import type { ResponseHead } from './response-head.ts';

/** An answer whose body is read next. Disposing it gives the connection back, or cuts it when bytes are left. */
export interface HttpResponse extends AsyncDisposable {
  readonly head: ResponseHead;
  /** Bytes of the body that are known to come still. */
  readonly left: number | undefined;
  /** The next bytes of the body, valid until the next call. @throws as BodyReader.read; `cancelled` */
  read(): Promise<Buffer | undefined>;
  /** Ends it at once, also while `read` waits: the connection is cut unless the body was read to its end. */
  cut(): void;
}

/** What is read and dropped to keep a connection; beyond it a new connection is cheaper. */
const MAX_DRAIN_LENGTH = 64 * 1024;

interface Host {
  readonly permits: Semaphore;
  readonly idle: HttpConnection[];
}

/** Requests on kept connections, a limited number at once to each scheme, host and port. */
export class HttpClient implements AsyncDisposable {
  readonly #connector: Connector;
  readonly #options: CompiledOriginOptions;
  readonly #metrics: OriginMetrics;
  readonly #hosts = new Map<string, Host>();
  readonly #closing = new AbortController();

  constructor(connector: Connector, options: CompiledOriginOptions, metrics: OriginMetrics) {
    this.#connector = connector;
    this.#options = options;
    this.#metrics = metrics;
    // Every open request listens.
    setMaxListeners(0, this.#closing.signal);
  }

  /**
   * One request and the head of its answer, whatever its status.
   *
   * @throws `unavailable`, `deadline-exceeded`, `permission-denied`, `origin` for what is no HTTP, `cancelled`
   */
  async request(request: HttpRequest, signal: AbortSignal | undefined): Promise<HttpResponse> {
    const labels = { scheme: request.url.protocol.slice(0, -1), method: request.method };
    const key = request.url.origin;
    const host = this.#hosts.get(key) ?? this.#newHost(key);
    const scope = new AbortScope([signal, this.#closing.signal]);
    let permit: Disposable | undefined;
    const start = performance.now();
    this.#metrics.requests.add(1, labels);
    try {
      permit = await host.permits.acquire(scope.signal);
      return await this.#exchange(request, host, permit, scope);
    } catch (error) {
      this.#metrics.failures.add(1, labels);
      permit?.[Symbol.dispose]();
      scope[Symbol.dispose]();
      this.#forget(key, host);
      throw error;
    } finally {
      this.#metrics.duration.observe(performance.now() - start, labels);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new PantalaError('cancelled', 'the client of origins is closed'));
    for (const { idle } of this.#hosts.values()) for (const connection of idle.splice(0)) connection.destroy();
    this.#hosts.clear();
    await Promise.resolve();
  }

  async #exchange(request: HttpRequest, host: Host, permit: Disposable, scope: AbortScope): Promise<HttpResponse> {
    for (;;) {
      const connection = takeIdle(host) ?? (await this.#open(request.url, host, scope.signal));
      const reused = connection.requests > 0;
      const onAbort = () => connection.destroy();
      scope.signal.addEventListener('abort', onAbort, { once: true });
      try {
        const answer = await connection.exchange(request);
        const finish = (keep: boolean) => {
          scope.signal.removeEventListener('abort', onAbort);
          scope[Symbol.dispose]();
          if (keep) this.#keep(request.url.origin, host, connection);
          else connection.destroy();
          permit[Symbol.dispose]();
        };
        return new Response(answer.head, answer.body, answer.reusable, scope.signal, finish);
      } catch (error) {
        scope.signal.removeEventListener('abort', onAbort);
        connection.destroy();
        if (scope.signal.aborted) throw PantalaError.from(scope.signal.reason);
        const failure = PantalaError.from(error);
        // An origin may close a kept connection at any time; that is no answer to a request without a body.
        if (!(reused && failure.code === 'unavailable' && request.body === undefined)) throw failure;
      }
    }
  }

  async #open(url: URL, host: Host, signal: AbortSignal): Promise<HttpConnection> {
    const connection = new HttpConnection(await this.#connector.open(url, signal), this.#options);
    connection.onClose(() => {
      const index = host.idle.indexOf(connection);
      if (index >= 0) host.idle.splice(index, 1);
      this.#forget(url.origin, host);
    });
    return connection;
  }

  #newHost(key: string): Host {
    const host: Host = { permits: new Semaphore(this.#options.requestsPerHost), idle: [] };
    this.#hosts.set(key, host);
    return host;
  }

  #keep(key: string, host: Host, connection: HttpConnection): void {
    if (!connection.idle || host.idle.length >= MAX_IDLE_PER_HOST || this.#closing.signal.aborted) {
      connection.destroy();
      return;
    }
    connection.rest(this.#options.idleTimeout);
    host.idle.push(connection);
    this.#hosts.set(key, host);
  }

  /** Hosts are as many as callers name; those that are at rest are let go of. */
  #forget(key: string, host: Host): void {
    const busy = host.permits.held > 0 || host.permits.waiting > 0 || host.idle.length > 0;
    if (!busy && this.#hosts.get(key) === host) this.#hosts.delete(key);
  }
}

function takeIdle(host: Host): HttpConnection | undefined {
  for (let connection = host.idle.pop(); connection !== undefined; connection = host.idle.pop()) {
    if (connection.idle) return connection;
    connection.destroy();
  }
  return undefined;
}

class Response implements HttpResponse {
  readonly head: ResponseHead;
  readonly #body: BodyReader;
  readonly #reusable: boolean;
  readonly #signal: AbortSignal;
  #finish: ((keep: boolean) => void) | undefined;

  constructor(
    head: ResponseHead,
    body: BodyReader,
    reusable: boolean,
    signal: AbortSignal,
    finish: (keep: boolean) => void,
  ) {
    this.head = head;
    this.#body = body;
    this.#reusable = reusable;
    this.#signal = signal;
    this.#finish = finish;
  }

  get left(): number | undefined {
    return this.#body.left;
  }

  async read(): Promise<Buffer | undefined> {
    try {
      return await this.#body.read();
    } catch (error) {
      throw PantalaError.from(this.#signal.aborted ? this.#signal.reason : error);
    }
  }

  cut(): void {
    this.#take()?.(this.#reusable && this.#body.done);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const finish = this.#take();
    if (finish === undefined) return;
    try {
      const { left } = this.#body;
      if (this.#reusable && left !== undefined && left <= MAX_DRAIN_LENGTH) {
        while ((await this.#body.read()) !== undefined);
      }
      finish(this.#reusable && this.#body.done);
    } catch {
      finish(false);
    }
  }

  #take(): ((keep: boolean) => void) | undefined {
    const finish = this.#finish;
    this.#finish = undefined;
    return finish;
  }
}
