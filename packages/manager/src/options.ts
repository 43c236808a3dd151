import type { RpcTls } from '@pantala/api';

/** Where something listens. Port 0 is any free one. */
export interface ListenAddress {
  readonly host: string;
  readonly port: number;
}

/** What a manager may be told; the keys of upstream's manager.yaml that mean something here end up in it. */
export interface ManagerOptions {
  /** gRPC (`server.grpc`); 0.0.0.0:65003 when left out. */
  readonly grpc?: ListenAddress;
  /** Mutual TLS of gRPC; not encrypted when left out. */
  readonly tls?: RpcTls | undefined;
  /** `GET /healthy` (`server.rest.addr`); 127.0.0.1:8080 when left out. */
  readonly rest?: ListenAddress;
  /** `GET /metrics` (`metrics.addr`); off when left out. */
  readonly metrics?: ListenAddress | undefined;
  /** CPU and heap profiles (`pprofPort`); off when left out. */
  readonly profiles?: ListenAddress | undefined;
  /** Path of the SQLite file; its folder is made. /var/lib/dragonfly/manager.db when left out. */
  readonly database?: string;
  /** Milliseconds without a keep-alive message after which a program counts as gone; 15 s when left out. */
  readonly keepAliveTimeout?: number;
}

export interface CompiledManagerOptions extends Required<ManagerOptions> {}

/** Three of upstream's intervals of 5 s. The end of the stream is noticed at once, whatever this says. */
const KEEP_ALIVE_TIMEOUT = 15_000;

export function compileManagerOptions(given: ManagerOptions = {}): CompiledManagerOptions {
  return {
    grpc: given.grpc ?? { host: '0.0.0.0', port: 65_003 },
    tls: given.tls,
    rest: given.rest ?? { host: '127.0.0.1', port: 8080 },
    metrics: given.metrics,
    profiles: given.profiles,
    database: given.database ?? '/var/lib/dragonfly/manager.db',
    keepAliveTimeout: given.keepAliveTimeout ?? KEEP_ALIVE_TIMEOUT,
  };
}
