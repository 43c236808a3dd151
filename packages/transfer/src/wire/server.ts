import { createServer, type Server, type Socket } from 'node:net';
import { type Logger, type Metrics, PantalaError, type RateLimiter, TokenBucket, unlimited } from '@pantala/base';
import type { ParentAddress, PieceSource } from './contract.ts';
import { uploadMetrics } from './metrics.ts';
import { compileServerOptions, type PieceServerOptions } from './options.ts';
import { UploadConnection } from './upload-connection.ts';

export interface PieceServerDeps {
  readonly source: PieceSource;
  readonly logger: Logger;
  readonly metrics: Metrics;
}

/** The port at which other peers get bytes. Disposing it cuts every connection. */
export interface PieceServer extends AsyncDisposable {
  readonly address: ParentAddress;
  /** Connections that are open now. */
  readonly connections: number;
}

/** Half-open connections are found by the kernel: first probe after this many milliseconds of silence. */
const KEEP_ALIVE_DELAY = 5_000;
/** Connections that wait to be accepted; upstream's backlog. */
const BACKLOG = 1024;

/**
 * Begins to serve pieces to Dragonfly's and Pantala's peers on one TCP port.
 *
 * @throws `failed-precondition` when the address is in use
 */
export async function startPieceServer(options: PieceServerOptions, deps: PieceServerDeps): Promise<PieceServer> {
  const compiled = compileServerOptions(options);
  const metrics = uploadMetrics(deps.metrics);
  const total = bucket(compiled.uploadRate, unlimited);
  const sockets = new Set<Socket>();
  const server = createServer({
    allowHalfOpen: true,
    noDelay: true,
    keepAlive: true,
    keepAliveInitialDelay: KEEP_ALIVE_DELAY,
  });
  server.on('connection', (socket) => {
    if (sockets.size >= compiled.maxConnections) {
      deps.logger.warn('piece connection refused: too many', { limit: compiled.maxConnections });
      socket.destroy();
      return;
    }
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
    const limiter = bucket(compiled.connectionUploadRate, total);
    new UploadConnection(socket, compiled, { source: deps.source, limiter, metrics, logger: deps.logger });
  });
  await listen(server, compiled.host, compiled.port);
  const bound = server.address();
  if (bound === null || typeof bound === 'string') throw new PantalaError('internal', 'the piece port has no address');
  return {
    address: { host: compiled.host, port: bound.port },
    get connections() {
      return sockets.size;
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

function bucket(rate: number, parent: RateLimiter): RateLimiter {
  return Number.isFinite(rate) ? new TokenBucket({ rate, parent }) : parent;
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const hint = error.code === 'EADDRINUSE' ? 'another program listens there; choose another port' : error.message;
      reject(
        new PantalaError('failed-precondition', `cannot serve pieces on ${host}:${port}: ${hint}`, { cause: error }),
      );
    });
    server.listen({ host, port, backlog: BACKLOG }, resolve);
  });
}
