import type { ManagerOptions } from '@pantala/manager';
import {
  type ConfigNode,
  ConfigReport,
  type Decoder,
  either,
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
  goAddress,
  LOOPBACK,
  NO_JOBS,
  type Operation,
  operationOf,
  programKeys,
  unusedDirectoryKeys,
  unusedProgramKeys,
} from './shared.ts';

const NO_OTHER_DATABASE = 'the database is an SQLite file';

const sqliteOnly: Decoder<void> = {
  decode(node) {
    if (!node.absent && node.text !== 'sqlite') node.warning(`${node.path} has no effect: ${NO_OTHER_DATABASE}`);
  },
};

/** Upstream's `manager.yaml`. `database.sqlite` is ours. */
export const managerSchema = section(
  {
    ...programKeys,
    server: section(
      {
        ...directoryKeys,
        grpc: section(
          {
            listenIP: text(EVERYWHERE),
            port: either(
              (node) => node.entries === undefined,
              port(65_003),
              section({ start: port(65_003), end: port(65_003) }),
            ),
            tls: tlsSection,
          },
          {
            unused: {
              advertiseIP: 'peers and schedulers are told the manager’s address by their own files',
              requestRateLimit: 'the manager is asked once a minute',
            },
          },
        ),
        rest: section({ addr: goAddress }, { unused: { tls: 'there is no REST API yet' } }),
      },
      { unused: { ...unusedDirectoryKeys, name: 'it has no effect upstream either' } },
    ),
    database: section(
      { type: sqliteOnly, sqlite: section({ path: text() }) },
      {
        unused: {
          mysql: NO_OTHER_DATABASE,
          postgres: NO_OTHER_DATABASE,
          redis: 'no Redis is needed',
        },
      },
    ),
  },
  {
    unused: {
      ...unusedProgramKeys,
      auth: 'there is no REST API yet',
      cache: 'answers come from the database',
      job: NO_JOBS,
      objectStorage: 'there is no gateway for object storage',
    },
  },
);

export interface ManagerFile {
  readonly options: ManagerOptions;
  readonly operation: Operation;
  readonly warnings: readonly string[];
}

/** @throws `failed-precondition` naming every mistake with its place */
export function readManagerFile(path: string | undefined): ManagerFile {
  const report = new ConfigReport();
  const node = path === undefined ? parseConfig('', 'defaults', report) : readConfig(path, report);
  const file = decodeManager(node);
  report.throwIfBad();
  return { ...file, warnings: report.warnings };
}

export function decodeManager(node: ConfigNode): Omit<ManagerFile, 'warnings'> {
  const file = managerSchema.decode(node);
  const { grpc, rest } = file.server;
  const operation = operationOf(file, file.server.logDir);
  return {
    options: {
      grpc: { host: grpc.listenIP, port: typeof grpc.port === 'number' ? grpc.port : grpc.port.start },
      tls: grpc.tls,
      rest: rest.addr ?? { host: LOOPBACK, port: 8080 },
      metrics: operation.metrics,
      profiles: operation.profiles,
      ...(file.database.sqlite.path === undefined ? {} : { database: file.database.sqlite.path }),
    },
    operation,
  };
}
