import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { ERROR_SURFACES, type Logger, nodeHttp, PantalaError } from '@pantala/base';
import type { MetricsRegistry } from '../metrics/index.ts';

/** Time for the head of a request: these ports are asked by probes and scrapers, which send at once. */
const HEAD_TIMEOUT_MS = 10_000;
/** Connections at once: probes, scrapers and a profile or two. */
const MAX_CONNECTIONS = 64;

export interface AdminAnswer {
  readonly status?: number;
  readonly contentType?: string;
  readonly body?: string | Uint8Array;
}

/** Answers of GET by exact path. */
export type AdminRoutes = Readonly<Record<string, (url: URL, signal: AbortSignal) => Promise<AdminAnswer>>>;

/** Anything that answers requests on a port of the operator's. */
export type AdminHandler = (request: IncomingMessage, response: ServerResponse) => Promise<void>;

export interface AdminServerOptions {
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  /** What the port is for, as in "health" or "pprof". */
  readonly purpose: string;
}

/** A small HTTP server for operators: health, metrics, profiles. */
export class AdminServer implements AsyncDisposable {
  readonly #server: Server;
  readonly host: string;
  readonly port: number;

  private constructor(server: Server, host: string, port: number) {
    this.#server = server;
    this.host = host;
    this.port = port;
  }

  /** @throws `failed-precondition` when the port is taken, naming it and its purpose. */
  static async listen(options: AdminServerOptions, handler: AdminHandler, logger: Logger): Promise<AdminServer> {
    const server = nodeHttp().createServer({ requestTimeout: HEAD_TIMEOUT_MS }, (request, response) => {
      handler(request, response).catch((error: unknown) => {
        logger.debug('an operator request failed', { purpose: options.purpose, path: request.url, error });
        fail(response, PantalaError.from(error));
      });
    });
    server.maxConnections = MAX_CONNECTIONS;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once('error', reject);
    server.listen({ host: options.host, port: options.port }, resolve);
    try {
      await promise;
    } catch (error) {
      throw listenError(error, options);
    }
    server.off('error', reject);
    const address = server.address();
    const port = typeof address === 'object' && address !== null ? address.port : options.port;
    return new AdminServer(server, options.host, port);
  }

  /** `http://HOST:PORT`, with a host that can be asked where it listens everywhere. */
  get url(): string {
    return `http://${this.host === '0.0.0.0' ? '127.0.0.1' : this.host}:${this.port}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    this.#server.closeAllConnections();
    await promise;
  }
}

/** The error of a listen that failed: what, where, and what to do. */
export function listenError(error: unknown, options: AdminServerOptions): PantalaError {
  const cause = PantalaError.from(error);
  if (cause.details.errno !== 'EADDRINUSE') return cause;
  return new PantalaError(
    'failed-precondition',
    `port ${options.port} on ${options.host} (${options.purpose}) is taken by another program; free it or configure another`,
    { cause },
  );
}

function fail(response: ServerResponse, error: PantalaError): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  response.writeHead(ERROR_SURFACES[error.code].http, { 'content-type': 'text/plain; charset=utf-8' });
  response.end(`${error.message}\n`);
}

/** A handler for fixed paths; others answer 404, other methods 405. */
export function routed(routes: AdminRoutes): AdminHandler {
  return async (request, response) => {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const route = Object.hasOwn(routes, url.pathname) ? routes[url.pathname] : undefined;
    if (route === undefined) {
      throw new PantalaError('not-found', `no ${url.pathname} here; there is: ${Object.keys(routes).join(' ')}`);
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.writeHead(405, { allow: 'GET, HEAD' }).end();
      return;
    }
    const gone = new AbortController();
    response.once('close', () => gone.abort());
    const answer = await route(url, gone.signal);
    const body = answer.body ?? '';
    response.writeHead(answer.status ?? 200, {
      'content-length': Buffer.byteLength(body),
      ...(answer.contentType === undefined ? {} : { 'content-type': answer.contentType }),
    });
    response.end(request.method === 'HEAD' ? undefined : body);
  };
}

/** `GET /healthy`, and whatever path the older generation names: 200 and an empty body while `healthy` says so. */
export function healthRoutes(paths: readonly string[], healthy: () => boolean): AdminRoutes {
  const answer = async (): Promise<AdminAnswer> => ({ status: healthy() ? 200 : 503 });
  return Object.fromEntries(['/healthy', ...paths].map((path) => [path, answer]));
}

export function metricsRoutes(metrics: MetricsRegistry): AdminRoutes {
  return { '/metrics': () => metrics.render() };
}
