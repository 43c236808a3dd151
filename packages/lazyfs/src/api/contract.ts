import type { Listeners } from '@pantala/base';
import type { MountAccounting } from '../accounting/index.ts';
import type { FillCounters, FillEvent } from '../cache/index.ts';
import type { NydusdConfig } from '../config/index.ts';
import type { LazyBlob } from '../contract.ts';
import type { WaitingRead } from '../demand.ts';
import type { BackendCounters } from '../sources/index.ts';

export interface ApiRequest {
  readonly url: URL;
  /** Parsed JSON; undefined without a body. */
  readonly body: unknown;
  readonly signal: AbortSignal;
}

/** Without a body the answer is 204. */
export interface ApiAnswer {
  /** Default 200. */
  readonly status?: number;
  /** As JSON, or as it is when it is text; lines of an iterable are sent as they come. */
  readonly body?: object | string | AsyncIterable<string>;
  readonly contentType?: string;
}

/** Answers by `METHOD /path`; errors are answered with the status of their code. */
export type ApiRoutes = Readonly<Record<string, (request: ApiRequest) => Promise<ApiAnswer>>>;

/** A mount as the API shows it. */
export interface ApiMount {
  /** Absolute path. */
  readonly mountpoint: string;
  /** Milliseconds since 1970. */
  readonly mountedAt: number;
  readonly backend: 'registry' | 'localfs';
  /** How it was configured, without secrets. */
  readonly config: object;
  /** Undefined where nothing has been read since the worker started: then there is nothing to tell either. */
  readonly opened:
    | {
        readonly blobs: readonly LazyBlob[];
        readonly backend: Readonly<BackendCounters>;
        readonly accounting: MountAccounting | undefined;
      }
    | undefined;
}

export interface ApiMountRequest {
  readonly mountpoint: string;
  /** Path of a bootstrap. */
  readonly source: string;
  /** Undefined: as the worker was told at its start. */
  readonly config: NydusdConfig | undefined;
  readonly prefetchFiles: readonly string[];
}

/** What the worker does for the API. */
export interface ApiService {
  readonly id: string;
  readonly mounts: readonly ApiMount[];
  /** @throws `already-exists`, `data-loss`, `invalid-argument` */
  mount(request: ApiMountRequest): Promise<void>;
  /**
   * Another bootstrap or configuration for what is mounted there; what is there stays when it cannot be had.
   *
   * @throws `not-found`, `failed-precondition` while it is in use, and as `mount`
   */
  remount(request: ApiMountRequest): Promise<void>;
  /** @throws `not-found`, `failed-precondition` while it is in use */
  unmount(mountpoint: string): Promise<void>;
  /** Credentials for what a mount fetches from here on, whichever worker serves it: user:password in base64. @throws `not-found` */
  setCredentials(mountpoint: string, auth: string): Promise<void>;
  /** @throws `invalid-argument` for an unknown level */
  setLogLevel(level: string): Promise<void>;
  /** Ends the worker when what it does is done; mounts stay as far as they can. */
  exit(): Promise<void>;
  /** Reads that a driver has not answered yet. */
  readonly inflight: readonly WaitingRead[];
}

/** What the API tells besides. */
export interface ApiParts {
  /** Pantala's. */
  readonly version: string;
  readonly service: ApiService;
  readonly cache: {
    readonly directory: string;
    readonly counters: Readonly<FillCounters>;
    readonly fills: Pick<Listeners<FillEvent>, 'subscribe'>;
  };
  /** As nydusd's events. */
  readonly events: { list(): object };
  /** All metrics in Prometheus' text format. */
  readonly metrics?: { render(): Promise<{ readonly body: string; readonly contentType: string }> };
}
