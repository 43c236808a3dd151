import { createServer, type IncomingMessage, type Server, type ServerOptions, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { type Logger, type Metrics, PantalaError } from '@pantala/base';
import type { Downloader } from '@pantala/swarm';
import type { CertificateAuthority } from './authority.ts';
import { ConnectHandler } from './connect.ts';
import type { DirectClient } from './direct.ts';
import { Gate } from './gate.ts';
import { proxyMetrics } from './metrics.ts';
import {
  type CompiledOptions,
  compileOptions,
  type ListenOptions,
  LOCAL_MIRROR,
  type Mirror,
  type ProxyOptions,
} from './options.ts';
import { OutputFiles } from './output-files.ts';
import { RequestHandler } from './request.ts';
import { SharedContent } from './shared.ts';
import { listenOnSocket } from './unix-listener.ts';

/** Bytes of a request's header. Registry tokens alone may have more than Node's default of 16 KiB. */
const MAX_HEADER_BYTES = 64 * 1024;
/** Connections at once on one listener: below the usual limit of descriptors, which uploads and the store need too. */
const MAX_CONNECTIONS = 8192;
/** Milliseconds without a byte on a connection whose TLS ends here: Node looks for slow headers only on listeners. */
const INTERCEPTED_IDLE_LIMIT = 5 * 60_000;
/** Milliseconds between two looks for clients that are too slow with their headers. */
const SLOW_CLIENT_CHECK = 1_000;

export interface ProxyParts {
  readonly downloader: Downloader;
  readonly direct: DirectClient;
  readonly logger: Logger;
  readonly metrics: Metrics;
}

export interface ListenAddress {
  readonly host: string;
  readonly port: number;
  readonly tls: boolean;
}

export interface ProxyServer extends AsyncDisposable {
  /** The main listener. */
  readonly address: ListenAddress;
  /** One for each of `extraMirrors`. */
  readonly extraAddresses: readonly ListenAddress[];
  /** The unix socket; undefined when none was wanted. */
  readonly socketPath: string | undefined;
  /** PEM of the authority that clients of intercepted hosts must trust; undefined without interception. */
  readonly authorityCertificate: string | undefined;
}

/**
 * Listens and serves until it is disposed: then no connection is taken any more, requests under way have
 * `shutdownGrace`, and what is left is broken off.
 *
 * @throws `invalid-argument` for options; `unavailable` when an address can't be listened on
 */
export async function startProxy(given: ProxyOptions, parts: ProxyParts): Promise<ProxyServer> {
  const options = compileOptions(given);
  const authority = await authorityOf(options);
  const proxy = new RunningProxy(options, parts, authority);
  try {
    const addresses: ListenAddress[] = [];
    for (const { listen, mirror } of options.listeners) addresses.push(await proxy.listen(listen, mirror));
    if (options.socketPath !== undefined) await proxy.listenOnSocket(options.socketPath);
    const [address, ...extraAddresses] = addresses as [ListenAddress, ...ListenAddress[]];
    return {
      address,
      extraAddresses,
      socketPath: options.socketPath,
      authorityCertificate: authority?.certificate,
      [Symbol.asyncDispose]: () => proxy[Symbol.asyncDispose](),
    };
  } catch (error) {
    await proxy[Symbol.asyncDispose]();
    throw error;
  }
}

async function authorityOf(options: CompiledOptions): Promise<CertificateAuthority | undefined> {
  if (options.interceptHosts.length === 0) return undefined;
  // Its library takes time and memory that most proxies have no use for.
  const { CertificateAuthority } = await import('./authority.ts');
  if (options.authority !== undefined) return CertificateAuthority.of(options.authority);
  return options.stateDir === undefined ? undefined : CertificateAuthority.keptIn(options.stateDir);
}

class RunningProxy implements AsyncDisposable {
  readonly #options: CompiledOptions;
  readonly #requests: RequestHandler;
  readonly #connects: ConnectHandler;
  readonly #logger: Logger;
  readonly #servers: Server[] = [];
  /** Serves connections whose TLS ended here; listens nowhere. */
  readonly #intercepted: Server;
  /** Connections that CONNECT took from their server. */
  readonly #detached = new Set<Duplex>();
  readonly #closing = new AbortController();
  #removeSocket = () => {};
  #closed: Promise<void> | undefined;

  constructor(options: CompiledOptions, parts: ProxyParts, authority: CertificateAuthority | undefined) {
    const metrics = proxyMetrics(parts.metrics);
    const gate = new Gate(options);
    const outputFiles = new OutputFiles(options.outputDirectories);
    this.#options = options;
    this.#logger = parts.logger;
    this.#requests = new RequestHandler({
      options,
      gate,
      metrics,
      direct: parts.direct,
      logger: parts.logger,
      shared: new SharedContent(parts.downloader, options, outputFiles),
    });
    const [{ mirror }] = options.listeners as [CompiledOptions['listeners'][number]];
    this.#intercepted = createServer(this.#limits(), (req, res) => this.#requests.handle(req, res, mirror));
    this.#intercepted.timeout = INTERCEPTED_IDLE_LIMIT;
    this.#connects = new ConnectHandler({
      gate,
      metrics,
      authority,
      direct: parts.direct,
      logger: parts.logger,
      interceptHosts: options.interceptHosts,
      signal: this.#closing.signal,
      onIntercepted: (socket, origin) => {
        this.#requests.intercepted(socket, origin);
        this.#intercepted.emit('connection', socket);
      },
    });
  }

  #limits(): ServerOptions {
    return {
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: this.#options.headerTimeout,
      keepAliveTimeout: this.#options.idleTimeout,
      // Uploads may take hours; what is idle is found by the connection's own time-out.
      requestTimeout: 0,
      connectionsCheckingInterval: Math.min(SLOW_CLIENT_CHECK, this.#options.headerTimeout),
    };
  }

  async listen(listen: ListenOptions, mirror: Mirror): Promise<ListenAddress> {
    const { host = '127.0.0.1', port, tls } = listen;
    const handler = (req: IncomingMessage, res: ServerResponse) => this.#requests.handle(req, res, mirror);
    const server =
      tls === undefined
        ? createServer(this.#limits(), handler)
        : createTlsServer({ ...this.#limits(), ...tls }, handler);
    server.maxConnections = MAX_CONNECTIONS;
    server.on('connect', (req: IncomingMessage, socket: Duplex, early: Buffer) => {
      this.#detached.add(socket);
      socket.once('close', () => this.#detached.delete(socket));
      void this.#connects.handle(req, socket, early);
    });
    server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => refuseMalformed(error, socket));
    this.#servers.push(server);
    const { first, last } =
      typeof port === 'number' ? { first: port, last: port } : { first: port.start, last: port.end };
    for (let candidate = first; ; candidate++) {
      try {
        await listening(server, host, candidate);
        break;
      } catch (error) {
        const taken = (error as NodeJS.ErrnoException).code === 'EADDRINUSE';
        if (taken && candidate < last) continue;
        throw new PantalaError(
          'unavailable',
          `the proxy can't listen on ${host}:${candidate}: ${(error as Error).message}`,
          {
            cause: error,
          },
        );
      }
    }
    const bound = server.address() as AddressInfo;
    const where = { host: bound.address, port: bound.port };
    server.on('error', (error) => this.#logger.error('proxy listener failed', { ...where, error: error.message }));
    this.#logger.info('proxy listens', where);
    return { ...where, tls: tls !== undefined };
  }

  async listenOnSocket(path: string): Promise<void> {
    const server = createServer(this.#limits(), (req, res) => this.#requests.handle(req, res, LOCAL_MIRROR, true));
    server.maxConnections = MAX_CONNECTIONS;
    server.on('clientError', (error: NodeJS.ErrnoException, socket: Socket) => refuseMalformed(error, socket));
    this.#servers.push(server);
    this.#removeSocket = await listenOnSocket(server, path);
    server.on('error', (error) => this.#logger.error('proxy listener failed', { path, error: error.message }));
    this.#logger.info('proxy listens', { path });
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.#removeSocket();
    const closed = this.#servers.filter((server) => server.listening).map(closing);
    this.#closing.abort(new PantalaError('cancelled', 'the proxy stops'));
    await this.#requests.drained(this.#options.shutdownGrace);
    for (const server of this.#servers) server.closeAllConnections();
    for (const socket of this.#detached) socket.destroy();
    await Promise.all(closed);
  }
}

function listening(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host, port }, () => {
      server.removeListener('error', reject);
      resolve();
    });
  });
}

function closing(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
  });
}

function refuseMalformed(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || !socket.writable) return void socket.destroy();
  const status =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? '431 Request Header Fields Too Large'
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? '408 Request Timeout'
        : '400 Bad Request';
  socket.end(`HTTP/1.1 ${status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, () => socket.destroy());
}
