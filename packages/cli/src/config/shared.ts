import { type ConfigNode, type Decoder, flag, section, text, wholeInteger } from '@pantala/service';

export interface Address {
  readonly host: string;
  readonly port: number;
}

export const LOOPBACK = '127.0.0.1';
export const EVERYWHERE = '0.0.0.0';

export const NO_AUTO_ISSUE = 'no certificates are issued here; name files in the tls sections';
export const NO_TRACES = 'no traces are exported';
export const NO_PLUGINS = 'no plug-ins are loaded';
export const NO_JOBS = 'there are no jobs yet';

/** `:8000` or `10.0.0.1:8000`; an empty host is every address, as Go has it. */
export const goAddress: Decoder<Address | undefined> = {
  decode(node: ConfigNode) {
    if (node.absent || node.text === '') return undefined;
    const match = /^(\[[0-9a-fA-F:]+\]|[^:\s]*):(\d{1,5})$/.exec(node.text ?? '');
    if (match === null || Number(match[2]) > 65_535) {
      node.problem(`${node.path} must be an address such as :8000`);
      return undefined;
    }
    const host = (match[1] as string).replace(/^\[|\]$/g, '');
    return { host: host === '' ? EVERYWHERE : host, port: Number(match[2]) };
  },
};

/** Keys that manager and scheduler have alike. */
export const programKeys = {
  verbose: flag(false),
  console: flag(false),
  'pprof-port': wholeInteger(-1),
  // As the chart's values write it.
  pprofPort: wholeInteger(),
  metrics: section({ enable: flag(false), addr: goAddress, enableHost: flag(false) }),
  network: section({ enableIPv6: flag(false) }),
};

export const unusedProgramKeys = {
  security: NO_AUTO_ISSUE,
  jaeger: NO_TRACES,
  telemetry: NO_TRACES,
  tracing: NO_TRACES,
};

/** Where the files of a program go. */
export const directoryKeys = { logDir: text() };

export const unusedDirectoryKeys = {
  workHome: 'paths are named one by one',
  cacheDir: 'nothing is cached on disk',
  pluginDir: NO_PLUGINS,
  dataDir: 'it keeps nothing on disk',
};

/** What a program's file says of its operation. */
export interface Operation {
  readonly verbose: boolean;
  readonly console: boolean;
  readonly logDirectory: string | undefined;
  readonly metrics: Address | undefined;
  readonly profiles: Address | undefined;
}

/** Upstream's port of metrics. */
const METRICS_PORT = 8000;

export function operationOf(
  file: {
    readonly verbose: boolean;
    readonly console: boolean;
    readonly 'pprof-port': number;
    readonly pprofPort: number | undefined;
    readonly metrics: { readonly enable: boolean; readonly addr: Address | undefined };
  },
  logDirectory: string | undefined,
): Operation {
  const pprofPort = file.pprofPort ?? file['pprof-port'];
  return {
    verbose: file.verbose,
    console: file.console,
    logDirectory,
    metrics: file.metrics.enable ? (file.metrics.addr ?? { host: EVERYWHERE, port: METRICS_PORT }) : undefined,
    profiles: pprofPort < 0 ? undefined : { host: LOOPBACK, port: pprofPort },
  };
}
