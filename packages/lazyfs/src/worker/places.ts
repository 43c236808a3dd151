import { join } from 'node:path';

/** What is lost with a start of the machine, as the mounts are. */
export const DEFAULT_STATE_DIRECTORY = '/run/pantala/lazyfs';
/** What outlives it. */
export const DEFAULT_CACHE_DIRECTORY = '/var/lib/pantala/lazyfs';

export interface Places {
  readonly stateDirectory: string;
  /** Unix socket on which the worker is asked. */
  readonly api: string;
  readonly guardianSocket: string;
  /** Of a guardian that is a program of its own on the host; undefined where the worker starts one. */
  readonly hostGuardian: string | undefined;
  /** There while the worker is a program that somebody else starts: a command waits for it and starts none. */
  readonly service: string;
  /** Locked by the worker that serves. */
  readonly lock: string;
  /** What worker and guardian log. */
  readonly log: string;
  /** A file for each mount. */
  readonly records: string;
  /** Where the FUSE driver shows blobs. */
  readonly fuse: string;
  readonly cacheDirectory: string;
  readonly blobs: string;
  /** Bootstraps of mounted images, each named by its SHA-256. */
  readonly bootstraps: string;
}

/** Where a guardian of the host listens. The directory is what a container has mounted. */
export const DEFAULT_GUARDIAN_SOCKET = '/run/pantala/guardian/guardian.sock';

export function placesOf(stateDirectory: string, cacheDirectory: string, hostGuardian?: string): Places {
  return {
    stateDirectory,
    api: join(stateDirectory, 'api.sock'),
    guardianSocket: join(stateDirectory, 'guardian.sock'),
    hostGuardian,
    service: join(stateDirectory, 'service'),
    lock: join(stateDirectory, 'worker.lock'),
    log: join(stateDirectory, 'lazyfs.log'),
    records: join(stateDirectory, 'mounts'),
    fuse: join(stateDirectory, 'fuse'),
    cacheDirectory,
    blobs: join(cacheDirectory, 'blobs'),
    bootstraps: join(cacheDirectory, 'bootstraps'),
  };
}
