import type { SchedulerOptions } from '@pantala/scheduler';
import {
  address,
  always,
  type ConfigNode,
  ConfigReport,
  count,
  duration,
  parseConfig,
  port,
  readConfig,
  section,
  text,
  tlsSection,
} from '@pantala/service';
import {
  directoryKeys,
  EVERYWHERE,
  NO_JOBS,
  type Operation,
  operationOf,
  programKeys,
  unusedDirectoryKeys,
  unusedProgramKeys,
} from './shared.ts';

const WOKEN = 'a waiting peer is woken when a parent is there';

/** Upstream's `scheduler.yaml`. Limits that are left out have our defaults, not upstream's: see docs/LIMITS.md. */
export const schedulerSchema = section(
  {
    ...programKeys,
    server: section(
      {
        ...directoryKeys,
        advertiseIP: text(),
        advertisePort: port(),
        listenIP: text(EVERYWHERE),
        port: port(8002),
        requestRateLimit: count(),
        tls: tlsSection,
      },
      { unused: { ...unusedDirectoryKeys, host: 'see host' } },
    ),
    scheduler: section(
      {
        backToSourceCount: count(),
        gc: section(
          { pieceDownloadTimeout: duration(), peerTTL: duration(), hostTTL: duration(), peerGCInterval: duration() },
          {
            unused: {
              taskGCInterval: 'tasks go with their last peer',
              hostGCInterval: 'hosts are looked at together with peers',
            },
          },
        ),
      },
      {
        unused: {
          algorithm: 'there is one',
          retryBackToSourceLimit: WOKEN,
          retryLimit: WOKEN,
          retryInterval: WOKEN,
          networkTopology: 'parents are chosen by what transfers measured',
        },
      },
    ),
    host: section({ hostname: text(), idc: text(), location: text() }),
    manager: section({
      addr: address(),
      schedulerClusterID: count(),
      keepAlive: section({ interval: duration() }),
      tls: tlsSection,
    }),
    seedPeer: section({
      enable: always(true, 'seeds that announce themselves are used'),
      taskDownloadTimeout: duration(),
      tls: tlsSection,
    }),
    dynconfig: section(
      { refreshInterval: duration() },
      { unused: { type: 'it follows from whether there is a manager' } },
    ),
  },
  {
    unused: {
      ...unusedProgramKeys,
      database: 'a scheduler keeps its state in memory',
      storage: 'a scheduler keeps its state in memory',
      resource: 'a scheduler keeps its state in memory',
      job: NO_JOBS,
      trainer: 'upstream no longer has it either',
    },
  },
);

export interface SchedulerFile {
  readonly options: SchedulerOptions;
  readonly operation: Operation;
  readonly warnings: readonly string[];
}

/** @throws `failed-precondition` naming every mistake with its place */
export function readSchedulerFile(path: string | undefined, dynconfigPath: string | undefined): SchedulerFile {
  const report = new ConfigReport();
  const node = path === undefined ? parseConfig('', 'defaults', report) : readConfig(path, report);
  const { options, operation } = decodeScheduler(node);
  report.throwIfBad();
  const dynconfig = options.manager === undefined && dynconfigPath !== undefined ? { dynconfigPath } : {};
  return { options: { ...options, ...dynconfig }, operation, warnings: report.warnings };
}

export function decodeScheduler(node: ConfigNode): Omit<SchedulerFile, 'warnings'> {
  const file = schedulerSchema.decode(node);
  const { server, host, manager } = file;
  const { gc, backToSourceCount } = file.scheduler;
  return {
    options: {
      listen: { host: server.listenIP, port: server.port },
      tls: server.tls,
      seedTls: file.seedPeer.tls,
      advertise: defined({ ip: server.advertiseIP, port: server.advertisePort }),
      ...defined({
        hostname: host.hostname,
        idc: host.idc,
        location: host.location,
        dynconfigRefreshInterval: file.dynconfig.refreshInterval,
        seedDownloadTimeout: file.seedPeer.taskDownloadTimeout,
        requestRateLimit: server.requestRateLimit,
      }),
      ...(manager.addr === undefined
        ? {}
        : {
            manager: {
              address: manager.addr,
              tls: manager.tls,
              ...defined({
                schedulerClusterId: manager.schedulerClusterID,
                keepAliveInterval: manager.keepAlive.interval,
              }),
            },
          }),
      scheduling: defined({
        backToSourceCount,
        pieceDownloadTimeoutMs: gc.pieceDownloadTimeout,
        peerTtlMs: gc.peerTTL,
        hostTtlMs: gc.hostTTL,
        gcIntervalMs: gc.peerGCInterval,
      }),
      hostMetrics: file.metrics.enableHost,
    },
    operation: operationOf(file, server.logDir),
  };
}

type Defined<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

/** The properties that have a value: what is left out has the program's own default. */
function defined<T extends object>(values: T): Defined<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as Defined<T>;
}
