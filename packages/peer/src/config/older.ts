import {
  address,
  always,
  type ConfigNode,
  count,
  type Decoded,
  type Decoder,
  duration,
  either,
  flag,
  list,
  optionalSection,
  percent,
  port,
  section,
  size,
  text,
  wholeInteger,
} from '@pantala/service';
import { pattern } from './pattern.ts';
import { type Address, EVERYWHERE, LOOPBACK, MINUTE, NO_RATE_LIMIT, type PeerConfig } from './peer-config.ts';

const NO_AUTO_ISSUE =
  'no manager issues certificates here; name files in upload.server, upload.client, scheduler and manager of today’s format';
const NO_TUNING = 'how pieces are asked for follows from the measured answers of the parents';
const NO_OBJECT_STORAGE = 'there is no gateway for object storage';
const NOT_RELOADED = 'the file is read when the program starts';

const MIB = 1024 * 1024;

const netAddress = either(
  (node) => node.entries === undefined,
  address(),
  section({ type: text('tcp'), addr: address() }),
);

/** A port, or the first free one of a range. */
const portOrRange: Decoder<number | { readonly start: number; readonly end: number }> = either(
  (node) => node.entries === undefined,
  port(65_001),
  section({ start: port(65_001), end: port(65_001) }),
);

/** `:8000` or `10.0.0.1:8000`; an empty text is off, as upstream has it. */
const metricsAddress: Decoder<Address | undefined> = {
  decode(node: ConfigNode) {
    if (node.absent || node.text === '') return undefined;
    const match = /^([^:\s]*):(\d{1,5})$/.exec(node.text ?? '');
    if (match === null || Number(match[2]) > 65_535) {
      node.problem(`${node.path} must be an address such as :8000`);
      return undefined;
    }
    return { host: match[1] === '' ? EVERYWHERE : (match[1] as string), port: Number(match[2]) };
  },
};

const registryMirrorSchema = section({
  url: text('https://index.docker.io'),
  dynamic: flag(false),
  certs: list(text()),
  insecure: flag(false),
  direct: flag(false),
  useProxies: flag(false),
});

/** The proxy's part, which may also be a file of its own. */
export const olderProxySchema = section(
  {
    defaultFilter: text(''),
    defaultTag: text(),
    defaultApplication: text(),
    defaultPriority: count(),
    maxConcurrency: count(0),
    security: section(
      { insecure: flag(false), cert: text(), key: text() },
      { unused: { caCert: 'clients of the proxy are not asked for certificates', tlsVerify: 'as before' } },
    ),
    tcpListen: section(
      { listen: text(LOOPBACK), port: portOrRange },
      { unused: { namespace: 'the proxy listens in the network namespace that it was started in' } },
    ),
    registryMirror: registryMirrorSchema,
    proxies: list(section({ regx: pattern(''), useHTTPS: flag(false), direct: flag(false), redirect: text() })),
    hijackHTTPS: optionalSection(
      {
        cert: text(),
        key: text(),
        hosts: list(section({ regx: pattern('.*'), insecure: flag(false), certs: list(text()) })),
      },
      { unused: { sni: 'TLS without a proxy request in front of it is not taken over: send it through CONNECT' } },
    ),
    whiteList: list(section({ host: text(), regx: pattern(), ports: list(text()) })),
    basicAuth: optionalSection({ username: text(), password: text() }),
  },
  {
    unused: {
      dumpHTTPContent: 'contents are never logged',
      extraRegistryMirrors: 'one port serves every registry: X-Dragonfly-Registry or ?ns= names it',
    },
  },
);

export type OlderProxyFile = Decoded<typeof olderProxySchema>;

/** Either the section or the path of a file with it. */
export interface ProxyPlace {
  readonly file: string | undefined;
  readonly inline: OlderProxyFile;
}

const proxyPlace: Decoder<ProxyPlace> & { readonly shape: typeof olderProxySchema.shape } = {
  // Shows the keys to whoever wants to know the format.
  ...olderProxySchema,
  decode: (node) =>
    node.text === undefined
      ? { file: undefined, inline: olderProxySchema.decode(node) }
      : { file: node.text, inline: olderProxySchema.decode(node.missing('file')) },
};

/** Keys of the older `dfget.yaml` with upstream's defaults, but for listeners. */
export const olderSchema = section(
  {
    verbose: flag(false),
    console: flag(false),
    'pprof-port': wholeInteger(-1),
    // As the chart's values write it.
    pprofPort: wholeInteger(),
    gcInterval: duration(MINUTE),
    metrics: metricsAddress,
    logDir: text(),
    dataDir: text('/var/lib/dragonfly'),
    keepStorage: always(true, 'what is held is kept over restarts'),
    scheduler: section(
      {
        manager: section({
          enable: flag(false),
          netAddrs: list(netAddress),
          refreshInterval: duration(10 * MINUTE),
          seedPeer: section(
            { enable: flag(false), type: text('super'), clusterID: count(1) },
            { unused: { keepAlive: 'schedulers know seeds by their own announcements' } },
          ),
        }),
        netAddrs: list(netAddress),
        disableAutoBackSource: flag(false),
      },
      { unused: { scheduleTimeout: 'the origin serves when no scheduler or parent does, within a second' } },
    ),
    host: section({ idc: text(), location: text(), hostname: text(), advertiseIP: text() }),
    download: section(
      {
        totalRateLimit: size(1024 * MIB),
        perPeerRateLimit: size(512 * MIB),
        prefetch: flag(false),
        downloadGRPC: section(
          { unixListen: section({ socket: text('/var/run/dfdaemon.sock') }) },
          { unused: { security: 'the socket is local' } },
        ),
        peerGRPC: section(
          { tcpListen: section({ listen: text(EVERYWHERE), port: port(65_000) }) },
          { unused: { security: NO_AUTO_ISSUE } },
        ),
      },
      {
        unused: {
          pieceDownloadTimeout: 'a silent parent is left out by what it usually takes, not after a fixed time',
          calculateDigest: 'digests are always checked',
          trafficShaperType: 'a connection gets what the total allows, fairly shared',
          grpcDialTimeout: NO_TUNING,
          getPiecesMaxRetry: NO_TUNING,
          watchdogTimeout: NO_TUNING,
          concurrent: NO_TUNING,
          recursiveConcurrent: 'directories are not downloaded',
          cacheRecursiveMetadata: 'directories are not downloaded',
          splitRunningTasks: 'a task is downloaded once',
          resourceClients: 'origins are http and https',
          syncPieceViaHTTPS: NO_AUTO_ISSUE,
        },
      },
    ),
    upload: section(
      {
        rateLimit: size(1024 * MIB),
        tcpListen: section({ listen: text(EVERYWHERE), port: port(65_002) }),
      },
      { unused: { security: NO_AUTO_ISSUE } },
    ),
    storage: section(
      { taskExpireTime: duration(6 * 60 * MINUTE), diskGCThreshold: size(0), diskGCThresholdPercent: percent(95) },
      {
        unused: {
          strategy: 'outputs share the store’s blocks where the file system can, else they are copies',
          multiplex: 'readers of the same content always share it',
          dataPath: 'see dataDir',
        },
      },
    ),
    proxy: proxyPlace,
    health: section({
      tcpListen: section({ listen: text(LOOPBACK), port: port(40_901) }),
      path: text('/server/ping'),
    }),
    network: section({ enableIPv6: flag(false) }),
    announcer: section({ schedulerInterval: duration(30_000) }),
  },
  {
    unused: {
      jaeger: 'no traces are exported',
      telemetry: 'no traces are exported',
      aliveTime: 'the program runs until it is told to stop',
      workHome: 'paths are named one by one',
      cacheDir: 'nothing is cached outside the store',
      pluginDir: 'no plug-ins are loaded',
      objectStorage: NO_OBJECT_STORAGE,
      reload: NOT_RELOADED,
      security: NO_AUTO_ISSUE,
      networkTopology: 'parents are chosen by what transfers measured',
    },
  },
);

export type OlderFile = Decoded<typeof olderSchema>;

/** Below the threshold upstream stops at once; a distance keeps eviction from running all the time. */
const EVICTION_DISTANCE_PERCENT = 5;

export function compileOlder(file: OlderFile, proxy: OlderProxyFile, readText: (path: string) => string): PeerConfig {
  const { host, download, upload, storage, scheduler } = file;
  const pprofPort = file.pprofPort ?? file['pprof-port'] ?? -1;
  const listen = (ip: string): string => (file.network.enableIPv6 && ip === EVERYWHERE ? '::' : ip);
  const managers = scheduler.manager.enable ? addressesOf(scheduler.manager.netAddrs) : [];
  return {
    generation: 'older',
    host: {
      ip: host.advertiseIP,
      hostname: host.hostname,
      idc: host.idc,
      location: host.location,
      schedulerClusterId: scheduler.manager.seedPeer.enable ? scheduler.manager.seedPeer.clusterID : undefined,
    },
    seed: {
      enabled: scheduler.manager.seedPeer.enable,
      type:
        (['normal', 'super', 'strong', 'weak'] as const).find((type) => type === scheduler.manager.seedPeer.type) ??
        'super',
    },
    log: { verbose: file.verbose, console: file.console, directory: file.logDir },
    socketPath: download.downloadGRPC.unixListen.socket,
    upload: {
      grpc: { host: listen(download.peerGRPC.tcpListen.listen), port: download.peerGRPC.tcpListen.port },
      pieces: { host: listen(upload.tcpListen.listen), port: upload.tcpListen.port },
      rate: upload.rateLimit,
      ratePerPeer: undefined,
      disabled: false,
    },
    download: {
      rate: download.totalRateLimit,
      ratePerPeer: download.perPeerRateLimit,
      originRate: NO_RATE_LIMIT,
      prefetchRate: NO_RATE_LIMIT,
    },
    manager: managers[0],
    schedulers: addressesOf(scheduler.netAddrs),
    tls: { server: undefined, peers: undefined, schedulers: undefined, manager: undefined },
    refreshInterval: scheduler.manager.refreshInterval,
    announceInterval: file.announcer.schedulerInterval,
    store: {
      directory: file.dataDir,
      taskTtl: storage.taskExpireTime,
      gcInterval: file.gcInterval,
      capacity: storage.diskGCThreshold,
      highPercent: storage.diskGCThresholdPercent,
      lowPercent: Math.max(0, storage.diskGCThresholdPercent - EVICTION_DISTANCE_PERCENT),
    },
    origin: {
      headers: {},
      maxRetries: 1,
      addresses: { allow: [], deny: [] },
      redirectTtl: 10 * MINUTE,
      trust: trustOf(proxy, readText),
    },
    proxy: compileProxy(proxy, {
      listen,
      readText,
      prefetch: download.prefetch,
      disableBackToSource: scheduler.disableAutoBackSource,
      serverIp: host.advertiseIP,
    }),
    health: { host: file.health.tcpListen.listen, port: file.health.tcpListen.port, paths: [file.health.path] },
    metrics: file.metrics,
    profiles: pprofPort < 0 ? undefined : { host: LOOPBACK, port: pprofPort },
  };
}

function compileProxy(
  proxy: OlderProxyFile,
  given: {
    readonly listen: (ip: string) => string;
    readonly readText: (path: string) => string;
    readonly prefetch: boolean;
    readonly disableBackToSource: boolean;
    readonly serverIp: string | undefined;
  },
): PeerConfig['proxy'] {
  const { security, tcpListen, registryMirror, hijackHTTPS, basicAuth } = proxy;
  const filter = proxy.defaultFilter.split('&').filter((name) => name !== '');
  return {
    listen: {
      host: given.listen(tcpListen.listen),
      port: tcpListen.port,
      ...(security.insecure || security.cert === undefined || security.key === undefined
        ? {}
        : { tls: { cert: given.readText(security.cert), key: given.readText(security.key) } }),
    },
    mirror: {
      upstream: registryMirror.url,
      upstreamFrom: registryMirror.dynamic ? ['header'] : [],
      share: registryMirror.direct ? 'nothing' : registryMirror.useProxies ? 'rules' : 'layers',
    },
    rules: proxy.proxies.map((rule) => ({
      regex: rule.regx,
      useTls: rule.useHTTPS,
      direct: rule.direct,
      ...(rule.redirect === undefined ? {} : { redirect: rule.redirect }),
    })),
    ...(hijackHTTPS?.cert === undefined || hijackHTTPS.key === undefined
      ? {}
      : {
          intercept: {
            hosts: hijackHTTPS.hosts.map((host) => host.regx),
            authority: { cert: given.readText(hijackHTTPS.cert), key: given.readText(hijackHTTPS.key) },
          },
        }),
    ...(basicAuth?.username === undefined || basicAuth.password === undefined
      ? {}
      : { basicAuth: { username: basicAuth.username, password: basicAuth.password } }),
    whiteList: proxy.whiteList.map(({ host, regx, ports }) => ({
      ...(host === undefined ? {} : { host }),
      ...(regx === undefined ? {} : { regex: regx }),
      ports: ports.map(Number),
    })),
    prefetch: given.prefetch,
    disableBackToSource: given.disableBackToSource,
    ...(proxy.maxConcurrency === 0 ? {} : { maxConcurrency: proxy.maxConcurrency }),
    defaults: {
      ...(proxy.defaultTag === undefined ? {} : { tag: proxy.defaultTag }),
      ...(proxy.defaultApplication === undefined ? {} : { application: proxy.defaultApplication }),
      ...(proxy.defaultPriority === undefined ? {} : { priority: proxy.defaultPriority }),
      ...(filter.length === 0 ? {} : { filteredQueryParams: filter }),
    },
    ...(given.serverIp === undefined ? {} : { serverIp: given.serverIp }),
  };
}

function trustOf(proxy: OlderProxyFile, readText: (path: string) => string): PeerConfig['origin']['trust'] {
  const { registryMirror, hijackHTTPS } = proxy;
  const mirrored =
    registryMirror.insecure || registryMirror.certs.length > 0
      ? [{ insecure: registryMirror.insecure, authorities: registryMirror.certs.map(readText) }]
      : [];
  const hijacked = (hijackHTTPS?.hosts ?? [])
    .filter((host) => host.insecure || host.certs.length > 0)
    .map((host) => ({ hosts: host.regx, insecure: host.insecure, authorities: host.certs.map(readText) }));
  return [...hijacked, ...mirrored];
}

function addressesOf(given: readonly (Address | { readonly addr: Address | undefined })[]): Address[] {
  return given.flatMap((entry) => ('addr' in entry ? (entry.addr === undefined ? [] : [entry.addr]) : [entry]));
}
