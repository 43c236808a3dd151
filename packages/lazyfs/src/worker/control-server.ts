import { rmSync } from 'node:fs';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { ERROR_SURFACES, type Logger, nodeHttp, PantalaError } from '@pantala/base';

/** Bytes of a request: a mount's sources with their certificates. */
const MAX_REQUEST_LENGTH = 1024 * 1024;

export interface ControlRequest {
  readonly url: URL;
  /** Parsed JSON; undefined without a body. */
  readonly body: unknown;
  readonly signal: AbortSignal;
}

export interface ControlAnswer {
  /** Default 200. */
  readonly status?: number;
  /** As JSON, or as it is when it is text; lines of an iterable are sent as they come. */
  readonly body?: object | string | AsyncIterable<string>;
  readonly contentType?: string;
}

/** Answers by `METHOD /path`. */
export type ControlRoutes = Readonly<Record<string, (request: ControlRequest) => Promise<ControlAnswer>>>;

/** HTTP on a unix socket that only root may use: commands of this machine, and tools that know nydusd's API. */
export class ControlServer implements AsyncDisposable {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** @throws `permission-denied`, `not-found` for the socket's directory */
  static async listen(socket: string, routes: ControlRoutes, logger: Logger): Promise<ControlServer> {
    const server = nodeHttp().createServer((request, response) => {
      answer(request, response, routes).catch((thrown: unknown) => {
        const error = PantalaError.from(thrown);
        logger.warn('a command failed', { command: `${request.method} ${request.url}`, error });
        fail(response, error);
      });
    });
    // The worker before this one has left it there.
    rmSync(socket, { force: true });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once('error', reject);
    const mask = process.umask(0o177);
    server.listen(socket, resolve);
    process.umask(mask);
    await promise;
    return new ControlServer(server);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    this.#server.closeAllConnections();
    await promise;
  }
}

async function answer(request: IncomingMessage, response: ServerResponse, routes: ControlRoutes): Promise<void> {
  const url = new URL(request.url ?? '/', 'http://localhost');
  const key = `${request.method} ${url.pathname}`;
  const route = Object.hasOwn(routes, key) ? routes[key] : undefined;
  if (route === undefined) throw new PantalaError('not-found', `there is no ${key} here`);
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  const { status = 200, body, contentType } = await route({ url, body: await bodyOf(request), signal: gone.signal });
  if (body === undefined) {
    response.writeHead(204).end();
  } else if (typeof body === 'object' && Symbol.asyncIterator in body) {
    response.writeHead(status, { 'content-type': contentType ?? 'application/x-ndjson' });
    response.flushHeaders();
    for await (const line of body) response.write(line);
    response.end();
  } else {
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    response.writeHead(status, {
      'content-type': contentType ?? (typeof body === 'string' ? 'text/plain; charset=utf-8' : 'application/json'),
      'content-length': Buffer.byteLength(text),
    });
    response.end(text);
  }
}

async function bodyOf(request: IncomingMessage): Promise<unknown> {
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > MAX_REQUEST_LENGTH) throw new PantalaError('resource-exhausted', 'the request is too long');
    parts.push(part);
  }
  if (length === 0) return undefined;
  try {
    return JSON.parse(Buffer.concat(parts).toString('utf8'));
  } catch {
    throw new PantalaError('invalid-argument', 'the request is no JSON');
  }
}

/** Both what our own commands read and what nydusd answers. */
function fail(response: ServerResponse, error: PantalaError): void {
  if (response.headersSent) {
    response.destroy();
    return;
  }
  const body = JSON.stringify({ code: error.code, message: error.message, details: error.details });
  response.writeHead(ERROR_SURFACES[error.code].http, { 'content-type': 'application/json' }).end(body);
}
