import {
  address,
  always,
  choice,
  count,
  type Decoded,
  dictionary,
  duration,
  flag,
  list,
  optionalSection,
  percent,
  port,
  section,
  size,
  text,
  withTls,
} from '@pantala/service';
import { addressBlock } from './address-block.ts';
import { pattern } from './pattern.ts';
import { EVERYWHERE, HOUR, LOOPBACK, MINUTE, NO_RATE_LIMIT, type PeerConfig } from './peer-config.ts';

const PAGE_CACHE = 'bytes are read and written through the kernel’s page cache in fitting portions';
const NO_THROTTLE = 'requests are bounded by what is in work, not by their number';
const throttle = { requestRateLimit: NO_THROTTLE, requestBufferSize: NO_THROTTLE };

/** Keys of upstream's present `dfdaemon.yaml` with upstream's defaults, but for listeners: see `LOOPBACK`. */
export const todaySchema = section(
  {
    verbose: flag(false),
    console: flag(false),
    log: section({ level: choice(['trace', 'debug', 'info', 'warn', 'error'], 'info') }),
    host: section({
      idc: text(),
      location: text(),
      hostname: text(),
      ip: text(),
      schedulerClusterID: count(),
    }),
    download: section(
      {
        server: section({ socketPath: text('/var/run/dragonfly/dfdaemon.sock') }, { unused: throttle }),
        bandwidthLimit: size(NO_RATE_LIMIT),
        backToSourceBandwidthLimit: size(NO_RATE_LIMIT),
        perPeerBandwidthLimit: size(NO_RATE_LIMIT),
      },
      {
        unused: {
          protocol: 'pieces travel over TCP',
          collectedPieceTimeout: 'peers tell what they hold as it arrives',
          pieceTimeout: 'a silent parent is left out by what it usually takes, not after a fixed time',
          concurrentPieceCount: "how much is asked for at once follows each parent's speed",
        },
      },
    ),
    upload: section({
      server: withTls({ ip: text(EVERYWHERE), port: port(4000) }, { unused: throttle }),
      client: withTls({}),
      disableShared: flag(false),
      bandwidthLimit: size(NO_RATE_LIMIT),
      perPeerBandwidthLimit: size(NO_RATE_LIMIT),
    }),
    manager: withTls({ addr: address() }),
    scheduler: withTls(
      { announceInterval: duration(5 * MINUTE) },
      {
        unused: {
          scheduleTimeout: 'the origin serves when no scheduler or parent does, within a second',
          maxScheduleCount: 'the scheduler wakes a waiting peer when a parent is there',
          enableBackToSource: 'upstream no longer reads it either; see proxy.disableBackToSource',
        },
      },
    ),
    seedPeer: section({ enable: flag(false), type: choice(['normal', 'super', 'strong', 'weak'], 'normal') }),
    dynconfig: section({ refreshInterval: duration(MINUTE) }),
    storage: section(
      {
        server: section(
          { ip: text(EVERYWHERE), tcpPort: port(4005) },
          {
            unused: {
              tcpFastopen: 'connections between peers are kept open',
              quicPort: 'pieces travel over TCP',
            },
          },
        ),
        dir: text('/var/lib/dragonfly/'),
        keep: always(true, 'what is held is kept over restarts'),
      },
      {
        unused: {
          writePieceTimeout: PAGE_CACHE,
          writeBufferSize: PAGE_CACHE,
          readBufferSize: PAGE_CACHE,
          cacheCapacity: PAGE_CACHE,
        },
      },
    ),
    backend: section(
      {
        requestHeader: dictionary(text()),
        maxRetries: count(1),
        enableCacheTemporaryRedirect: flag(true),
        cacheTemporaryRedirectTTL: duration(10 * MINUTE),
        registries: list(section({ host: text(), insecure: flag(false), ca: list(text()) })),
        addresses: section({ allow: list(addressBlock), deny: list(addressBlock) }),
      },
      {
        unused: {
          putConcurrentChunkCount: 'nothing is uploaded to origins',
          putChunkSize: 'nothing is uploaded to origins',
          putTimeout: 'nothing is uploaded to origins',
          enableHickoryDNS: 'names are resolved by the system',
        },
      },
    ),
    gc: section({
      interval: duration(15 * MINUTE),
      policy: section(
        {
          taskTTL: duration(720 * HOUR),
          diskThreshold: size(),
          distThreshold: size(),
          diskHighThresholdPercent: percent(),
          distHighThresholdPercent: percent(),
          diskLowThresholdPercent: percent(),
          distLowThresholdPercent: percent(),
        },
        {
          unused: {
            persistentTaskTTL: 'there are no persistent tasks',
            persistentCacheTaskTTL: 'there are no persistent cache tasks',
            pageCacheIdleTimeout: 'the kernel manages its page cache',
          },
        },
      ),
    }),
    proxy: section(
      {
        server: section(
          {
            ip: text(LOOPBACK),
            port: port(4001),
            requestRateLimit: count(4000),
            caCert: text(),
            caKey: text(),
            basicAuth: optionalSection({ username: text(), password: text() }),
          },
          { unused: { requestBufferSize: NO_THROTTLE } },
        ),
        rules: list(
          section({ regex: pattern(''), useTLS: flag(false), redirect: text(), filteredQueryParams: list(text()) }),
        ),
        registryMirror: section({
          addr: text('https://index.docker.io'),
          cert: text(),
          enableTaskIDBasedBlobDigest: always(true, 'a blob has one task id wherever it is asked from'),
        }),
        disableBackToSource: flag(false),
        prefetch: flag(false),
        prefetchBandwidthLimit: size(10_000_000_000),
      },
      { unused: { readBufferSize: PAGE_CACHE } },
    ),
    network: section({ enableIPv6: flag(false) }),
    health: section({ server: section({ ip: text(LOOPBACK), port: port(4003) }) }),
    metrics: section({ server: section({ ip: text(LOOPBACK), port: port(4002) }) }),
    stats: section({ server: section({ ip: text(LOOPBACK), port: port(4004) }) }),
  },
  {
    unused: {
      server: 'plug-ins, a cache directory and adaptive limits have no counterpart',
      security: 'upstream does not use it either',
      tracing: 'no traces are exported',
    },
  },
);

export type TodayFile = Decoded<typeof todaySchema>;

/** @param readText reads a PEM file that the configuration names */
export function compileToday(file: TodayFile, readText: (path: string) => string): PeerConfig {
  const { host, download, upload, storage, backend, proxy } = file;
  const { policy } = file.gc;
  const { caCert, caKey, basicAuth } = proxy.server;
  // IPv6 everywhere also takes IPv4.
  const listen = (ip: string): string => (file.network.enableIPv6 && ip === EVERYWHERE ? '::' : ip);
  return {
    generation: 'today',
    host: {
      ip: host.ip,
      hostname: host.hostname,
      idc: host.idc,
      location: host.location,
      schedulerClusterId: host.schedulerClusterID,
    },
    seed: { enabled: file.seedPeer.enable, type: file.seedPeer.type },
    log: {
      verbose: file.verbose || file.log.level === 'debug' || file.log.level === 'trace',
      console: file.console,
      directory: undefined,
    },
    socketPath: download.server.socketPath,
    upload: {
      grpc: { host: listen(upload.server.ip), port: upload.server.port },
      pieces: { host: listen(storage.server.ip), port: storage.server.tcpPort },
      rate: upload.bandwidthLimit,
      ratePerPeer: upload.perPeerBandwidthLimit,
      disabled: upload.disableShared,
    },
    download: {
      rate: download.bandwidthLimit,
      ratePerPeer: download.perPeerBandwidthLimit,
      originRate: download.backToSourceBandwidthLimit,
      prefetchRate: proxy.prefetchBandwidthLimit,
    },
    manager: file.manager.addr,
    schedulers: [],
    tls: {
      server: upload.server.tls,
      peers: upload.client.tls,
      schedulers: file.scheduler.tls,
      manager: file.manager.tls,
    },
    refreshInterval: file.dynconfig.refreshInterval,
    announceInterval: file.scheduler.announceInterval,
    store: {
      directory: storage.dir,
      taskTtl: policy.taskTTL,
      gcInterval: file.gc.interval,
      capacity: policy.diskThreshold ?? policy.distThreshold ?? 0,
      highPercent: policy.diskHighThresholdPercent ?? policy.distHighThresholdPercent ?? 80,
      lowPercent: policy.diskLowThresholdPercent ?? policy.distLowThresholdPercent ?? 60,
    },
    origin: {
      headers: backend.requestHeader,
      maxRetries: backend.maxRetries,
      addresses: backend.addresses,
      redirectTtl: backend.enableCacheTemporaryRedirect ? backend.cacheTemporaryRedirectTTL : 0,
      trust: [
        ...backend.registries.map((registry) => ({
          ...(registry.host === undefined ? {} : { hosts: exactly(registry.host) }),
          insecure: registry.insecure,
          authorities: registry.ca.map(readText),
        })),
        ...(proxy.registryMirror.cert === undefined
          ? []
          : [{ insecure: false, authorities: [readText(proxy.registryMirror.cert)] }]),
      ],
    },
    proxy: {
      listen: { host: listen(proxy.server.ip), port: proxy.server.port },
      mirror: { upstream: proxy.registryMirror.addr },
      rules: proxy.rules.map((rule) => ({
        regex: rule.regex,
        useTls: rule.useTLS,
        ...(rule.redirect === undefined ? {} : { redirect: rule.redirect }),
        ...(rule.filteredQueryParams.length === 0 ? {} : { filteredQueryParams: rule.filteredQueryParams }),
      })),
      ...(caCert === undefined || caKey === undefined
        ? {}
        : { intercept: { hosts: ['.*'], authority: { cert: readText(caCert), key: readText(caKey) } } }),
      ...(basicAuth?.username === undefined || basicAuth.password === undefined
        ? {}
        : { basicAuth: { username: basicAuth.username, password: basicAuth.password } }),
      prefetch: proxy.prefetch,
      disableBackToSource: proxy.disableBackToSource,
      ...(proxy.server.requestRateLimit === 0 ? {} : { requestRateLimit: proxy.server.requestRateLimit }),
      ...(host.ip === undefined ? {} : { serverIp: host.ip }),
    },
    health: { host: file.health.server.ip, port: file.health.server.port, paths: [] },
    metrics: { host: file.metrics.server.ip, port: file.metrics.server.port },
    profiles: { host: file.stats.server.ip, port: file.stats.server.port },
  };
}

/** A pattern for one host, with or without port. */
function exactly(host: string): string {
  const escaped = host.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return /:\d+$/.test(host) ? `^${escaped}$` : `^${escaped}(?::\\d+)?$`;
}
