import { once } from 'node:events';
import type { ClientRequest, Agent as HttpAgent, IncomingMessage, RequestOptions } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { urlToHttpOptions } from 'node:url';
import { AbortScope, nodeHttp, PantalaError } from '@pantala/base';

/** What a body is made from, each time that its request is sent. */
export type BodySource = () => AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

export interface HttpRequest {
  readonly method: string;
  readonly url: URL;
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: BodySource;
  readonly signal?: AbortSignal | undefined;
}

export interface HttpResponse extends AsyncDisposable {
  readonly status: number;
  /** Names in lower case; several values are joined with a comma. */
  readonly headers: Readonly<Record<string, string>>;
  /** As it came: not decompressed. Read it, or dispose the response. */
  readonly body: AsyncIterable<Buffer>;
}

/** One request and its answer: redirects are not followed, nothing is retried, no status is an error. */
export interface HttpTransport {
  /** @throws `unavailable` when there is no answer, `deadline-exceeded`, `cancelled` */
  request(request: HttpRequest): Promise<HttpResponse>;
}

export interface NodeTransportOptions {
  /** PEM certificates trusted besides the system's. */
  readonly ca?: string;
  /** Accept any certificate. */
  readonly insecure?: boolean;
  /** Milliseconds without a byte before an answer counts as lost. Default 60,000. */
  readonly idleTimeout?: number;
  /** Connections kept to each host. Default 16: a client of registries asks a few things at once, never hundreds. */
  readonly maxSockets?: number;
  /** Where every request goes instead of to the host of its URL. Default: there. */
  readonly via?: Via;
}

/** A server that fetches for us: on a unix socket, asked as if it were the origin, or a proxy, told the whole URL. */
export type Via = { readonly socketPath: string } | { readonly proxy: URL };

const MAX_SOCKETS = 16;

/** node:http and node:https. */
export class NodeTransport implements HttpTransport, Disposable {
  readonly #http: HttpAgent;
  readonly #https: HttpsAgent;
  readonly #idleTimeout: number;
  readonly #via: Via | undefined;

  constructor(options: NodeTransportOptions = {}) {
    this.#idleTimeout = options.idleTimeout ?? 60_000;
    this.#via = options.via;
    const maxSockets = options.maxSockets ?? MAX_SOCKETS;
    this.#http = new (nodeHttp().Agent)({ keepAlive: true, maxSockets });
    this.#https = new HttpsAgent({
      keepAlive: true,
      maxSockets,
      rejectUnauthorized: options.insecure !== true,
      ...(options.ca === undefined ? {} : { ca: options.ca }),
    });
  }

  async request(given: HttpRequest): Promise<HttpResponse> {
    for (let stale = 0; ; stale++) {
      const scope = new AbortScope([given.signal]);
      const req = this.#start(given, scope.signal);
      try {
        const answered = once(req, 'response') as Promise<[IncomingMessage]>;
        const sent = send(req, given.body);
        const [res] = await Promise.race([answered, sent.then(() => answered)]);
        return responseOf(res, given.url, scope);
      } catch (error) {
        req.destroy();
        scope[Symbol.dispose]();
        // The server closed a kept connection while the request was on its way: it was not carried out.
        const closedBefore = req.reusedSocket && (error as NodeJS.ErrnoException).code === 'ECONNRESET';
        if (!closedBefore || stale >= MAX_SOCKETS || given.signal?.aborted === true) throw lost(given.url, error);
      }
    }
  }

  #start(given: HttpRequest, signal: AbortSignal): ClientRequest {
    const address = addressOf(given.url, this.#via);
    const secure = address.protocol === 'https:';
    const req = (secure ? httpsRequest : nodeHttp().request)({
      ...address,
      method: given.method,
      headers: { ...address.headers, ...given.headers },
      agent: secure ? this.#https : this.#http,
      signal,
      timeout: this.#idleTimeout,
    });
    req.on('timeout', () => {
      req.destroy(new PantalaError('deadline-exceeded', `${given.url.host} sent nothing for ${this.#idleTimeout} ms`));
    });
    return req;
  }

  [Symbol.dispose](): void {
    this.#http.destroy();
    this.#https.destroy();
  }
}

interface Address extends RequestOptions {
  readonly headers?: Record<string, string>;
}

function addressOf(url: URL, via: Via | undefined): Address {
  if (via === undefined) return urlToHttpOptions(url) as Address;
  if ('socketPath' in via) {
    const path = `${url.pathname}${url.search}`;
    return { protocol: 'http:', socketPath: via.socketPath, path, headers: { host: url.host } };
  }
  const { protocol, hostname, port, auth } = urlToHttpOptions(via.proxy);
  const credentials = typeof auth === 'string' ? `Basic ${Buffer.from(auth).toString('base64')}` : undefined;
  return {
    protocol,
    hostname,
    port,
    path: url.href,
    headers: { host: url.host, ...(credentials === undefined ? {} : { 'proxy-authorization': credentials }) },
  };
}

async function send(req: ClientRequest, body: BodySource | undefined): Promise<void> {
  if (body === undefined) {
    req.end();
    return;
  }
  await pipeline(Readable.from(body(), { objectMode: false }), req).catch((error: NodeJS.ErrnoException) => {
    // A server may answer and close before it has read everything; its answer says why.
    if (error.code !== 'EPIPE' && error.code !== 'ECONNRESET' && error.code !== 'ERR_STREAM_PREMATURE_CLOSE')
      throw error;
  });
}

function responseOf(res: IncomingMessage, url: URL, scope: AbortScope): HttpResponse {
  const headers: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [name, value] of Object.entries(res.headers)) {
    if (value !== undefined) headers[name] = typeof value === 'string' ? value : value.join(', ');
  }
  res.once('close', () => scope[Symbol.dispose]());
  return {
    status: res.statusCode ?? 0,
    headers,
    body: chunksOf(res, url),
    async [Symbol.asyncDispose]() {
      if (!res.readableEnded) res.destroy();
    },
  };
}

async function* chunksOf(res: IncomingMessage, url: URL): AsyncGenerator<Buffer> {
  try {
    for await (const chunk of res) yield chunk as Buffer;
  } catch (error) {
    throw lost(url, error);
  }
}

function lost(url: URL, thrown: unknown): PantalaError {
  const error = PantalaError.from(thrown);
  const known = error.code === 'cancelled' || error.code === 'deadline-exceeded' || error.code === 'data-loss';
  return known ? error : new PantalaError('unavailable', `${url.host}: ${error.message}`, { cause: thrown });
}
