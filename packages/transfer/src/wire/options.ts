/** Options of the piece server. Times in milliseconds, rates in bytes a second. */
export interface PieceServerOptions {
  /** Address to listen on. Default 0.0.0.0: other peers must reach it. */
  readonly host?: string;
  /** Default 4005, upstream's; 0 takes a free one. */
  readonly port?: number;
  /** Bytes a second to all connections together. Default: no limit. */
  readonly uploadRate?: number;
  /** Bytes a second to each connection. Default: no limit. */
  readonly connectionUploadRate?: number;
  /** Connections at once; more are closed at once. */
  readonly maxConnections?: number;
  /** Requests at once on a connection; more are answered with "overloaded". */
  readonly maxRequests?: number;
  /** From the connect to the first whole request. */
  readonly firstRequestTimeout?: number;
  /** Without a request a kept connection is closed after this. */
  readonly idleTimeout?: number;
  /** A receiver that does not take one frame in this time is cut. */
  readonly sendTimeout?: number;
  /** How long a request waits for blocks that this seed fetches, without one of them arriving. */
  readonly fetchTimeout?: number;
}

/** 1000 children with one kept connection each, and headroom; a descriptor and about 10 KiB each. */
export const DEFAULT_MAX_CONNECTIONS = 4096;
/** A child keeps some tens of requests in flight; more only makes the queue longer. */
export const DEFAULT_MAX_REQUESTS = 256;
/** A child sends its request with the connect; what is silent is no child. */
export const FIRST_REQUEST_TIMEOUT = 10_000;
/** Longer than children keep an idle connection, so that the child closes first and never meets a reset. */
export const SERVER_IDLE_TIMEOUT = 300_000;
/** One frame of 256 KiB in this time is 8.7 KB/s: slower links are no use to anybody and hold a descriptor. */
export const SEND_TIMEOUT = 30_000;
/** An origin may be slow to begin; beyond this the child does better elsewhere. */
export const FETCH_TIMEOUT = 60_000;

export function compileServerOptions(options: PieceServerOptions): Required<PieceServerOptions> {
  return {
    host: options.host ?? '0.0.0.0',
    port: options.port ?? 4005,
    uploadRate: options.uploadRate ?? Number.POSITIVE_INFINITY,
    connectionUploadRate: options.connectionUploadRate ?? Number.POSITIVE_INFINITY,
    maxConnections: options.maxConnections ?? DEFAULT_MAX_CONNECTIONS,
    maxRequests: options.maxRequests ?? DEFAULT_MAX_REQUESTS,
    firstRequestTimeout: options.firstRequestTimeout ?? FIRST_REQUEST_TIMEOUT,
    idleTimeout: options.idleTimeout ?? SERVER_IDLE_TIMEOUT,
    sendTimeout: options.sendTimeout ?? SEND_TIMEOUT,
    fetchTimeout: options.fetchTimeout ?? FETCH_TIMEOUT,
  };
}

/** Options of connections to parents. Times in milliseconds. */
export interface ParentPoolOptions {
  /** Default 2 s, upstream's. */
  readonly connectTimeout?: number;
  /** A parent that owes blocks and completes none in this time is given up. */
  readonly silenceTimeout?: number;
  /** The same while the parent was told to fetch from the origin. */
  readonly fetchSilenceTimeout?: number;
  /** Connections without a request are closed after this. */
  readonly idleTimeout?: number;
  /** Bytes a second from one parent. Default: no limit of its own. */
  readonly connectionRate?: number;
}

export const CONNECT_TIMEOUT = 2_000;
/** One block of 16 KiB in this time is 1.6 KB/s; the swarm asks others long before (never worse than direct). */
export const SILENCE_TIMEOUT = 10_000;
/** The server's FETCH_TIMEOUT and a little: its own error comes first. */
export const FETCH_SILENCE_TIMEOUT = 65_000;
/** Below the server's SERVER_IDLE_TIMEOUT. */
export const PARENT_IDLE_TIMEOUT = 120_000;

export function compilePoolOptions(options: ParentPoolOptions): Required<ParentPoolOptions> {
  return {
    connectTimeout: options.connectTimeout ?? CONNECT_TIMEOUT,
    silenceTimeout: options.silenceTimeout ?? SILENCE_TIMEOUT,
    fetchSilenceTimeout: options.fetchSilenceTimeout ?? FETCH_SILENCE_TIMEOUT,
    idleTimeout: options.idleTimeout ?? PARENT_IDLE_TIMEOUT,
    connectionRate: options.connectionRate ?? Number.POSITIVE_INFINITY,
  };
}
