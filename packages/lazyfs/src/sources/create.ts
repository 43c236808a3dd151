import {
  DAEMON_SOCKET,
  type Logger,
  type Metrics,
  noMetrics,
  PantalaError,
  proxySocketOf,
  silentLogger,
} from '@pantala/base';
import { anonymous, type HttpTransport, NodeTransport } from '@pantala/oci';
import type { Urgency } from '../contract.ts';
import { Authorization } from './authorization.ts';
import { type ChainMember, SourceChain } from './chain.ts';
import { SourceHealth } from './health.ts';
import { LocalSource } from './local-source.ts';
import { SourceMetrics } from './metrics.ts';
import { checkedRepository, httpUrl, type LocalSourceOptions, type RegistrySourceOptions } from './options.ts';
import { RegistrySource, type RegistrySourceParts } from './registry-source.ts';

/** Milliseconds without a byte after which a request has failed. */
const TIMEOUT = 10_000;
/** Connections to each host: readers wait on many at once. */
const MAX_SOCKETS = 64;
/** Milliseconds between two pings of a source that is left out. */
const CHECK_INTERVAL = 5_000;
/** The peer is on this machine and asked for little: it is looked for again soon. */
const PEER_CHECK_INTERVAL = 1_000;
const FAILURE_LIMIT = 5;
/** nydusd's priorities: a reader waits, or nobody does. */
const PRIORITIES: Readonly<Record<Urgency, string>> = { demand: '6', prefetch: '3' };

export interface SourceParts {
  readonly logger?: Logger;
  readonly metrics?: Metrics;
  /** Counts for nydusd's API. Default: counters of its own. */
  readonly counters?: SourceMetrics;
}

/**
 * The sources of an image's blobs, in the order in which they are asked: the peer on this machine, mirrors, a proxy,
 * the registry.
 *
 * @throws `invalid-argument` naming the option
 */
export function registrySources(options: RegistrySourceOptions, parts: SourceParts = {}): SourceChain {
  const registry = httpUrl(options.registry, 'registry');
  const repository = checkedRepository(options.repository);
  const owned: NodeTransport[] = [];
  const transportOf = (via?: ConstructorParameters<typeof NodeTransport>[0]): NodeTransport => {
    const transport = new NodeTransport({
      idleTimeout: options.timeout ?? TIMEOUT,
      maxSockets: MAX_SOCKETS,
      insecure: options.insecure ?? false,
      ...(options.ca === undefined ? {} : { ca: options.ca }),
      ...via,
    });
    owned.push(transport);
    return transport;
  };
  const direct = transportOf();
  const credentials = options.credentials ?? anonymous;
  const authorization = new Authorization({ registry, repository, credentials, transport: direct });
  const common = { repository, direct, authorization, redirect: options.redirect ?? {} };
  const dragonfly = dragonflyHeaders(options.wholeBlobs ?? false);
  const members: ChainMember[] = [];
  const add = (source: Omit<RegistrySourceParts, keyof typeof common>, health: SourceHealth) => {
    members.push({ source: new RegistrySource({ ...common, ...source }), health });
  };

  const peerSocket = options.peerSocket ?? proxySocketOf(DAEMON_SOCKET);
  if (peerSocket !== false) {
    const transport = transportOf({ via: { socketPath: peerSocket } });
    // What the peer is asked looks like a request to any host: what counts is the header.
    const base = new URL('http://peer.invalid/');
    const headers = (urgency: Urgency) => ({ ...dragonfly(urgency), 'x-dragonfly-registry': registry.origin });
    add(
      { name: 'peer', base, transport, authThrough: true, prepares: true, headers },
      new SourceHealth({
        failureLimit: FAILURE_LIMIT,
        interval: PEER_CHECK_INTERVAL,
        ping: ping(transport, new URL('/v2/', base), { 'x-dragonfly-registry': registry.origin }),
      }),
    );
  }
  for (const [index, mirror] of (options.mirrors ?? []).entries()) {
    const base = httpUrl(mirror.host, `mirrors[${index}].host`);
    const own = Object.fromEntries(
      Object.entries(mirror.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value]),
    );
    const transport = transportOf();
    const pingUrl =
      mirror.pingUrl === undefined ? new URL('/v2/', base) : httpUrl(mirror.pingUrl, `mirrors[${index}].ping_url`);
    const headers = (urgency: Urgency) => ({ ...dragonfly(urgency), ...own });
    add(
      { name: `mirror ${base.host}`, base, transport, authThrough: mirror.authThrough ?? false, headers },
      new SourceHealth({
        failureLimit: mirror.failureLimit ?? FAILURE_LIMIT,
        interval: mirror.healthCheckInterval ?? CHECK_INTERVAL,
        ping: ping(transport, pingUrl, mirror.pingUrl === undefined ? own : {}),
      }),
    );
  }
  const { proxy } = options;
  if (proxy !== undefined) {
    const url = httpUrl(proxy.url, 'proxy.url');
    const transport = transportOf({ via: { proxy: url } });
    const base = new URL(registry);
    if (proxy.plainHttp === true) base.protocol = 'http:';
    const pingUrl = proxy.pingUrl === undefined ? undefined : httpUrl(proxy.pingUrl, 'proxy.ping_url');
    add(
      { name: `proxy ${url.host}`, base, transport, authThrough: false, headers: dragonfly },
      new SourceHealth({
        failureLimit: FAILURE_LIMIT,
        interval: proxy.checkInterval ?? CHECK_INTERVAL,
        ...(pingUrl === undefined ? {} : { ping: ping(direct, pingUrl, {}) }),
      }),
    );
  }
  if (proxy?.fallback !== false) {
    add(
      { name: `registry ${registry.host}`, base: registry, transport: direct, authThrough: true, headers: () => ({}) },
      new SourceHealth({ failureLimit: Number.POSITIVE_INFINITY, interval: CHECK_INTERVAL }),
    );
  }
  return new SourceChain({
    members,
    metrics: parts.counters ?? new SourceMetrics(parts.metrics ?? noMetrics),
    logger: parts.logger ?? silentLogger,
    ...(options.deadline === undefined ? {} : { deadline: options.deadline }),
    resources: {
      async [Symbol.asyncDispose]() {
        for (const transport of owned) transport[Symbol.dispose]();
      },
    },
  });
}

/** Stored blobs in folders, and nothing else. @throws `invalid-argument` when neither folder nor file is named */
export function localSources(options: LocalSourceOptions, parts: SourceParts = {}): SourceChain {
  if (options.file === undefined && options.directories.length === 0) {
    throw new PantalaError('invalid-argument', 'localfs needs a directory of blobs, or a blob file');
  }
  const source = new LocalSource(options);
  return new SourceChain({
    members: [
      { source, health: new SourceHealth({ failureLimit: Number.POSITIVE_INFINITY, interval: CHECK_INTERVAL }) },
    ],
    metrics: parts.counters ?? new SourceMetrics(parts.metrics ?? noMetrics),
    logger: parts.logger ?? silentLogger,
    resources: source,
  });
}

/** What a Dragonfly proxy is told of a read (nydusd's client and Dragonfly's documentation of the proxy). */
function dragonflyHeaders(wholeBlobs: boolean): (urgency: Urgency) => Readonly<Record<string, string>> {
  return (urgency) => ({
    'x-dragonfly-use-p2p': 'true',
    'x-dragonfly-priority': PRIORITIES[urgency],
    // Without the header the peer's own configuration decides, as its operator wants it.
    ...(urgency === 'prefetch' ? { 'x-dragonfly-prefetch': String(wholeBlobs) } : {}),
  });
}

/** Anything but a failure of the server itself is a sign of life. */
function ping(
  transport: HttpTransport,
  url: URL,
  headers: Readonly<Record<string, string>>,
): (signal: AbortSignal) => Promise<void> {
  return async (signal) => {
    await using response = await transport.request({ method: 'GET', url, headers, signal });
    if (response.status >= 500) throw new PantalaError('unavailable', `${url.host} answered ${response.status}`);
  };
}
