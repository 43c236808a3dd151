import { statfsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { createServer } from '@pantala/api';
import {
  Deferred,
  type HostIdentity,
  hostId,
  type Logger,
  MAX_SOCKET_PATH,
  proxySocketOf,
  type RateLimiter,
  TokenBucket,
  throwIfAborted,
} from '@pantala/base';
import { startProxy } from '@pantala/proxy';
import {
  type AdminRoutes,
  AdminServer,
  healthRoutes,
  type MetricsRegistry,
  metricsRoutes,
  Profiler,
  profileRoutes,
  routed,
} from '@pantala/service';
import { openStore } from '@pantala/store';
import { createDownloader, type Swarm } from '@pantala/swarm';
import { createOrigin, startPieceServer } from '@pantala/transfer';
import { type Address, NO_RATE_LIMIT, type PeerConfig } from './config/index.ts';
import type { ServiceContext } from './grpc/context.ts';
import { localService } from './grpc/local-service.ts';
import { peerService } from './grpc/peer-service.ts';
import { uploadService } from './grpc/upload-service.ts';
import { HostMeter } from './host/facts.ts';
import { hostName } from './host/identity.ts';
import { localStoreService } from './local-store.ts';
import { exposeGauges, serviceMetrics, withOlderNames } from './metrics.ts';
import { originOptions, storeOptions } from './parts.ts';
import { Rehearsal } from './rehearsal.ts';
import { SchedulerCalls } from './scheduler-calls.ts';
import { SchedulerList } from './scheduler-list.ts';

export interface PeerDependencies {
  readonly logger: Logger;
  readonly metrics: MetricsRegistry;
  /** Ends the start before it is done. */
  readonly signal?: AbortSignal;
  /** Schedulers besides those of the configuration. */
  readonly schedulers?: readonly Address[];
  /** Goes through small requests of its own once it listens, so that the first real one is as fast as the next. */
  readonly rehearse?: boolean;
  /** Upstream's dynconfig.yaml, read again at each refresh; only without a manager. */
  readonly dynconfigPath?: string;
}

/** A peer that answers. Disposing it stops it in order: readers first, the store last. */
export interface Peer extends AsyncDisposable {
  readonly addresses: {
    readonly proxy: Address;
    readonly grpc: Address;
    readonly pieces: Address;
    readonly health: Address;
    readonly metrics: Address | undefined;
    readonly profiles: Address | undefined;
  };
  readonly socketPath: string;
  /** Content by HTTP for programs of this machine, as lazy mounts ask for it. */
  readonly proxySocketPath: string | undefined;
  readonly hostId: string;
}

/**
 * Starts a peer, or a seed; resolves when every surface answers. Schedulers may come later.
 *
 * @throws `failed-precondition` or `unavailable` for a port, socket or directory that cannot be had
 */
export async function startPeer(config: PeerConfig, dependencies: PeerDependencies): Promise<Peer> {
  const { logger, signal } = dependencies;
  const metrics = withOlderNames(dependencies.metrics);
  await using resources = new AsyncDisposableStack();
  const name = hostName(config.host);
  const identity: HostIdentity = { ...name, seed: config.seed.enabled };
  const id = hostId(identity);
  const { directory } = config.store;
  await mkdir(join(directory, 'spool'), { recursive: true });

  const swarmReady = new Deferred<Swarm>();
  const evicted = (taskId: string) => void swarmReady.promise.then((swarm) => swarm.changed(taskId));
  const store = resources.use(await openStore(storeOptions(config.store), { logger, metrics, evicted }));
  exposeGauges(metrics, () => diskUse(directory));
  const listeners: Address[] = [];
  const downloadLimiter = limiterOf(config.download.rate);
  const origin = resources.use(
    createOrigin(originOptions(config, { limiter: downloadLimiter, ownListeners: () => listeners }), { metrics }),
  );

  const seed = identity.seed;
  const pieces = resources.use(
    await startPieceServer(
      {
        ...config.upload.pieces,
        ...rate('uploadRate', config.upload.rate),
        ...rate('connectionUploadRate', config.upload.ratePerPeer),
      },
      {
        source: {
          find: (taskId) => (config.upload.disabled ? undefined : store.get(taskId)),
          ...(seed ? { fetchMissing: async (...args) => await (await swarmReady.promise).fetchMissing(...args) } : {}),
        },
        logger,
        metrics,
      },
    ),
  );
  listeners.push(pieces.address);
  throwIfAborted(signal);

  const meter = new HostMeter({
    directory,
    idc: config.host.idc,
    location: config.host.location,
    piecePort: pieces.address.port,
    downloadRate: config.download.rate,
    uploadRate: config.upload.rate,
  });
  const schedulers = resources.use(new SchedulerCalls(id, config.tls.schedulers));
  const context: ServiceContext = {
    identity,
    hostId: id,
    piecePort: pieces.address.port,
    unshared: config.upload.disabled,
    store,
    swarm: swarmReady.promise,
    schedulers,
    meter,
    metrics: serviceMetrics(metrics),
  };
  const upload = resources.use(
    await createServer({
      address: config.upload.grpc,
      services: [uploadService(context), peerService(context)],
      tls: config.tls.server,
    }),
  );
  const grpc = 'port' in upload.address ? upload.address : config.upload.grpc;
  listeners.push(grpc);

  const swarm = createDownloader(
    {
      host: {
        ...identity,
        port: grpc.port,
        piecePort: pieces.address.port,
        ...optional('idc', config.host.idc),
        ...optional('location', config.host.location),
        ...optional('schedulerClusterId', config.host.schedulerClusterId),
        disableShared: config.upload.disabled,
      },
      announceInterval: config.announceInterval,
      spoolDirectory: join(directory, 'spool'),
      verbose: config.log.verbose,
      schedulerTls: config.tls.schedulers,
      peerTls: config.tls.peers,
    },
    {
      store,
      origin,
      logger,
      metrics,
      hostFacts: () => meter.facts(),
      ...optional('downloadLimiter', downloadLimiter),
      ...optional('prefetchLimiter', limiterOf(config.download.prefetchRate)),
      ...rate('downloadRatePerPeer', config.download.ratePerPeer),
    },
  );
  resources.use(swarm);
  swarmReady.resolve(swarm);
  resources.use(
    new SchedulerList({
      config,
      name,
      given: dependencies.schedulers ?? [],
      dynconfigPath: dependencies.dynconfigPath,
      logger,
      changed: (addresses) => {
        swarm.setSchedulers(addresses);
        schedulers.set(addresses);
      },
    }),
  );

  resources.use(
    await createServer({
      address: { path: config.socketPath },
      services: [localService(context), localStoreService(context)],
    }),
  );
  const proxySocket = proxySocketPath(config.socketPath, logger);
  const proxy = resources.use(
    await startProxy(
      {
        ...config.proxy,
        stateDir: config.proxy.stateDir ?? join(directory, 'proxy'),
        serverIp: name.ip,
        ...optional('socketPath', proxySocket),
      },
      { downloader: swarm, direct: origin.direct, logger, metrics },
    ),
  );
  listeners.push(proxy.address, ...proxy.extraAddresses);
  throwIfAborted(signal);

  const open = async (address: Address | undefined, purpose: string, routes: AdminRoutes) => {
    if (address === undefined) return undefined;
    const { host, port } = address;
    const server = resources.use(await AdminServer.listen({ host, port, purpose }, routed(routes), logger));
    listeners.push(server);
    return server;
  };
  const metricsServer = await open(config.metrics, 'metrics', metricsRoutes(dependencies.metrics));
  const profiles =
    config.profiles && (await open(config.profiles, 'pprof', profileRoutes(resources.use(await Profiler.start()))));
  const health = await open(
    config.health,
    'health',
    healthRoutes(config.health.paths, () => true),
  );
  throwIfAborted(signal);

  if (dependencies.rehearse === true) {
    const { tasks } = store.usage;
    const inEarnest = (): boolean => store.usage.tasks !== tasks;
    resources.use(new Rehearsal(join(directory, 'rehearsal'), inEarnest, logger));
  }

  logger.info('peer listens', { host: id, grpc, pieces: pieces.address, proxy: proxy.address, seed });
  const owned = resources.move();
  return {
    addresses: {
      proxy: proxy.address,
      grpc,
      pieces: pieces.address,
      health: health ?? config.health,
      metrics: metricsServer,
      profiles,
    },
    socketPath: config.socketPath,
    proxySocketPath: proxy.socketPath,
    hostId: id,
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** Beside the daemon's socket; undefined where the path would be longer than the kernel takes. */
function proxySocketPath(daemonSocket: string, logger: Logger): string | undefined {
  const path = proxySocketOf(daemonSocket);
  if (Buffer.byteLength(path) < MAX_SOCKET_PATH) return path;
  logger.warn('no proxy socket for lazy mounts: its path would be too long', { path });
  return undefined;
}

function diskUse(directory: string): { readonly total: number; readonly used: number } {
  const { blocks, bavail, bsize } = statfsSync(directory);
  return { total: blocks * bsize, used: (blocks - bavail) * bsize };
}

function limiterOf(bytesPerSecond: number): RateLimiter | undefined {
  return bytesPerSecond >= NO_RATE_LIMIT ? undefined : new TokenBucket({ rate: bytesPerSecond });
}

function rate<K extends string>(key: K, bytesPerSecond: number | undefined): { [P in K]?: number } {
  return optional(key, bytesPerSecond !== undefined && bytesPerSecond < NO_RATE_LIMIT ? bytesPerSecond : undefined);
}

/** An object with the key, or without it where there is no value: the two differ for optional properties. */
function optional<K extends string, V>(key: K, value: V | undefined): { [P in K]?: V } {
  return (value === undefined ? {} : { [key]: value }) as { [P in K]?: V };
}
