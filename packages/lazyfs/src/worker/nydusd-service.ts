import { PantalaError } from '@pantala/base';
import type { Credentials } from '@pantala/oci';
import type { ApiMount, ApiMountRequest, ApiService } from '../api/index.ts';
import type { WaitingRead } from '../demand.ts';
import type { LazyMounts } from '../mounting/lazy-mounts.ts';
import type { MountView } from '../mounting/mount.ts';
import type { MountRequest, SourceSettings } from '../mounting/mount-request.ts';

const LEVELS: ReadonlyMap<string, boolean> = new Map([
  ['trace', true],
  ['debug', true],
  ['info', false],
  ['warn', false],
  ['error', false],
]);

export interface NydusdServiceParts {
  readonly mounts: LazyMounts;
  /** Reads that have no answer yet. */
  readonly waiting: () => readonly WaitingRead[];
  /** Begins or ends debug lines. */
  readonly setVerbose: (verbose: boolean) => void;
  /** Ends the service in order. */
  readonly stop: () => void;
}

/** The worker's mounts as nydusd's API has them: a mountpoint is a directory of this machine. */
export class NydusdService implements ApiService {
  readonly id = 'pantala';
  readonly #parts: NydusdServiceParts;

  constructor(parts: NydusdServiceParts) {
    this.#parts = parts;
  }

  get inflight(): readonly WaitingRead[] {
    return this.#parts.waiting();
  }

  get mounts(): ApiMount[] {
    return this.#parts.mounts.views().map(apiMount);
  }

  async mount(request: ApiMountRequest): Promise<void> {
    await this.#parts.mounts.mount(mountRequest(request));
  }

  async remount(request: ApiMountRequest): Promise<void> {
    const before = this.#parts.mounts.views().find((view) => view.request.target === request.mountpoint);
    if (before === undefined) throw new PantalaError('not-found', `${request.mountpoint} is not mounted`);
    const next =
      request.config === undefined ? { ...before.request, bootstrap: request.source } : mountRequest(request);
    await this.#parts.mounts.replace(next);
  }

  unmount(mountpoint: string): Promise<void> {
    return this.#parts.mounts.unmount(mountpoint, { detach: false });
  }

  async setCredentials(mountpoint: string, auth: string): Promise<void> {
    await this.#parts.mounts.setCredentials(mountpoint, credentialsOf(auth));
  }

  async setLogLevel(level: string): Promise<void> {
    const verbose = LEVELS.get(level);
    if (verbose === undefined) {
      throw new PantalaError(
        'invalid-argument',
        `log level "${level.slice(0, 50)}"; known: ${[...LEVELS.keys()].join(', ')}`,
      );
    }
    this.#parts.setVerbose(verbose);
  }

  async exit(): Promise<void> {
    this.#parts.stop();
  }
}

function mountRequest({ mountpoint, source, config, prefetchFiles }: ApiMountRequest): MountRequest {
  if (config?.sources === undefined) {
    throw new PantalaError('invalid-argument', 'the configuration names no back end: where are the blobs?');
  }
  const { enabled, all, lanes, bandwidth } = config.prefetch;
  return {
    target: mountpoint,
    bootstrap: source,
    sources: config.sources,
    pieceLength: config.pieceLength,
    accounting: config.accounting,
    prefetch: {
      enabled: enabled || prefetchFiles.length > 0,
      all: enabled && all,
      lanes: Math.min(64, lanes),
      files: prefetchFiles,
      ...(bandwidth === undefined ? {} : { bandwidth }),
    },
  };
}

function apiMount({ request, mountedAt, image }: MountView): ApiMount {
  return {
    mountpoint: request.target,
    mountedAt,
    backend: request.sources.kind === 'local' ? 'localfs' : 'registry',
    config: shownConfig(request.sources),
    opened:
      image === undefined
        ? undefined
        : { blobs: image.blobs, backend: image.sources.counters, accounting: image.accounting },
  };
}

/** Without credentials: headers of mirrors may hold some as well. */
function shownConfig(sources: SourceSettings): object {
  if (sources.kind === 'local') return { type: 'localfs', ...sources.local };
  const { mirrors = [], proxy, registry, repository, insecure, timeout } = sources.registry;
  return {
    type: 'registry',
    host: registry,
    repo: repository,
    skip_verify: insecure ?? false,
    timeout,
    mirrors: mirrors.map(({ headers, ...rest }) => ({ ...rest, headers: Object.keys(headers ?? {}) })),
    ...(proxy === undefined ? {} : { proxy: { ...proxy, url: withoutUser(proxy.url) } }),
  };
}

function withoutUser(text: string): string {
  const url = URL.parse(text);
  return url === null ? '' : `${url.protocol}//${url.host}${url.pathname}`;
}

function credentialsOf(auth: string): Credentials {
  const decoded = Buffer.from(auth, 'base64').toString();
  const colon = decoded.indexOf(':');
  if (colon < 1) throw new PantalaError('invalid-argument', 'registry_auth must be user:password in base64');
  return { kind: 'password', username: decoded.slice(0, colon), password: decoded.slice(colon + 1) };
}
