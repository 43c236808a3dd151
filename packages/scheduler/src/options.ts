import { hostname } from 'node:os';
import type { RpcAddress, RpcTls } from '@pantala/api';
import type { SchedulingOptions } from '@pantala/scheduling';

/** What may be set; everything has a default. Times are milliseconds. */
export interface SchedulerOptions {
  /** Where peers reach it. Default `{ host: '0.0.0.0', port: 8002 }`: all of a cluster's peers need it. */
  readonly listen?: { readonly host?: string; readonly port?: number };
  /** What the manager tells peers: the address by which they reach it. Default: the listening one. */
  readonly advertise?: { readonly ip?: string; readonly port?: number };
  /** Mutual TLS of its own port; not encrypted when left out. */
  readonly tls?: RpcTls | undefined;
  /** Mutual TLS towards the upload ports of seeds. */
  readonly seedTls?: RpcTls | undefined;
  readonly hostname?: string;
  readonly idc?: string;
  readonly location?: string;
  /** Undefined: without a manager. */
  readonly manager?: ManagerOptions;
  /** Limits of the cluster in a file, read again when it changes; only without a manager. */
  readonly dynconfigPath?: string;
  readonly dynconfigRefreshInterval?: number;
  readonly scheduling?: SchedulingOptions;
  /** How long a seed may take for one task. */
  readonly seedDownloadTimeout?: number;
  /** Calls and new streams a second that are taken; more are refused. */
  readonly requestRateLimit?: number;
  /** Traffic is counted for each host as well. */
  readonly hostMetrics?: boolean;
}

export interface ManagerOptions {
  readonly address: RpcAddress;
  readonly tls?: RpcTls | undefined;
  readonly schedulerClusterId?: number;
  readonly keepAliveInterval?: number;
}

export type ManagerSettings = Required<ManagerOptions>;

export interface SchedulerSettings
  extends Required<Omit<SchedulerOptions, 'listen' | 'advertise' | 'tls' | 'seedTls' | 'manager' | 'dynconfigPath'>> {
  readonly listen: { readonly host: string; readonly port: number };
  readonly advertise: { readonly ip: string | undefined; readonly port: number | undefined };
  readonly tls: RpcTls | undefined;
  readonly seedTls: RpcTls | undefined;
  readonly manager: ManagerSettings | undefined;
  readonly dynconfigPath: string | undefined;
}

/** Upstream's ports and times. */
export const SCHEDULER_DEFAULTS = {
  listen: { host: '0.0.0.0', port: 8002 },
  dynconfigRefreshInterval: 60_000,
  seedDownloadTimeout: 10 * 3_600_000,
  requestRateLimit: 4_000,
  schedulerClusterId: 1,
  keepAliveInterval: 5_000,
} as const;

export function compileSchedulerOptions(options: SchedulerOptions): SchedulerSettings {
  const { manager } = options;
  return {
    listen: { ...SCHEDULER_DEFAULTS.listen, ...options.listen },
    advertise: { ip: options.advertise?.ip, port: options.advertise?.port },
    tls: options.tls,
    seedTls: options.seedTls,
    hostname: options.hostname ?? hostname(),
    idc: options.idc ?? '',
    location: options.location ?? '',
    manager:
      manager === undefined
        ? undefined
        : {
            address: manager.address,
            tls: manager.tls,
            schedulerClusterId: manager.schedulerClusterId ?? SCHEDULER_DEFAULTS.schedulerClusterId,
            keepAliveInterval: manager.keepAliveInterval ?? SCHEDULER_DEFAULTS.keepAliveInterval,
          },
    dynconfigPath: options.dynconfigPath,
    dynconfigRefreshInterval: options.dynconfigRefreshInterval ?? SCHEDULER_DEFAULTS.dynconfigRefreshInterval,
    scheduling: options.scheduling ?? {},
    seedDownloadTimeout: options.seedDownloadTimeout ?? SCHEDULER_DEFAULTS.seedDownloadTimeout,
    requestRateLimit: options.requestRateLimit ?? SCHEDULER_DEFAULTS.requestRateLimit,
    hostMetrics: options.hostMetrics ?? false,
  };
}

/** Tasks that a host lists in one message of HeldTasks at most; a longer one is cut. */
export const MAX_HELD_TASKS_PER_MESSAGE = 10_000;

/** Parents that one reschedule may name: more than anybody was ever given. */
export const MAX_BAD_PARENTS = 64;

/** Characters of an id (host, task, peer): upstream's longest is an address, a name and a UUID. */
export const MAX_ID_LENGTH = 512;

/** Milliseconds between two signs of a running trigger that the core is told of. */
export const TRIGGER_SIGN_INTERVAL = 1_000;
