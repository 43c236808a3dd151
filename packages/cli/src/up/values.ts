import type { ManagerOptions } from '@pantala/manager';
import { decodePeerConfig, defaultPeerConfig, type Generation, type PeerConfig } from '@pantala/peer';
import type { SchedulerOptions } from '@pantala/scheduler';
import {
  ConfigReport,
  count,
  type Decoder,
  flag,
  list,
  optionalSection,
  parseConfig,
  readConfig,
  section,
  text,
} from '@pantala/service';
import { decodeManager } from '../config/manager-file.ts';
import { decodeScheduler } from '../config/scheduler-file.ts';
import type { Operation } from '../config/shared.ts';
import { ALL_REGISTRIES, type MirroredRegistry, parseRegistry } from '../containerd/index.ts';

const KUBERNETES = 'it means something on Kubernetes only';
const OWN_PROGRAM = 'Pantala’s own programs run here';
const NO_SERVER = 'Pantala needs no such server';

/** Keys of a chart's part that a machine without Kubernetes cannot follow. */
const kubernetesKeys = Object.fromEntries(
  `name nameOverride fullnameOverride pullPolicy imagePullSecrets resources priorityClassName nodeSelector tolerations
  affinity terminationGracePeriodSeconds podAnnotations podLabels annotations statefulsetAnnotations hostAliases
  deploymentAnnotations daemonsetAnnotations serviceAnnotations metricsAnnotations hostNetwork hostPID hostIPC
  containerPort hostPort nodePort restPort grpcPort mountDataDirAsHostPath hostPath updateStrategy extraVolumes
  extraVolumeMounts extraEnvVars persistence service ingress initContainer maxProcs`
    .split(/\s+/)
    .map((key) => [key, KUBERNETES]),
);
const imageKeys = { image: OWN_PROGRAM, tag: OWN_PROGRAM };

const metricsSection = section(
  { enable: flag() },
  { unused: { service: KUBERNETES, serviceMonitor: KUBERNETES, podMonitor: KUBERNETES, prometheusRule: KUBERNETES } },
);

/** One of each runs on one machine. */
const oneReplica: Decoder<void> = {
  decode(node) {
    const replicas = count(1).decode(node);
    if (replicas !== 1) node.warning(`${node.path}: one machine runs one of these, not ${replicas}`);
  },
};

function part<T>(config: Decoder<T>, unused: Readonly<Record<string, string>> = {}) {
  return section(
    { enable: flag(), replicas: oneReplica, metrics: metricsSection, config },
    { unused: { ...kubernetesKeys, ...imageKeys, ...unused } },
  );
}

const registry: Decoder<MirroredRegistry | undefined> = {
  decode(node) {
    try {
      return parseRegistry(node.text ?? '');
    } catch {
      node.problem(`${node.path} must be a registry such as https://ghcr.io`);
      return undefined;
    }
  },
};

const containerRuntime = section(
  {
    containerd: section(
      {
        enable: flag(false),
        injectConfigPath: flag(false),
        configPathDir: text('/etc/containerd'),
        configFileName: text(''),
        registries: list(registry),
      },
      { unused: { injectRegistryCredencials: 'containerd sends its own credentials' } },
    ),
  },
  {
    unused: {
      docker: 'containerd is the runtime that can be set up',
      crio: 'containerd is the runtime that can be set up',
      podman: 'containerd is the runtime that can be set up',
      initContainerImage: KUBERNETES,
      extraInitContainers: KUBERNETES,
    },
  },
);

/** What the present chart has instead of `containerRuntime`. */
const dfinit = optionalSection(
  {
    enable: flag(false),
    config: section(
      {
        containerRuntime: section(
          {
            containerd: optionalSection({
              configPath: text('/etc/containerd/config.toml'),
              proxyAllRegistries: flag(true),
              registries: list(
                section(
                  { hostNamespace: text(''), serverAddr: text('') },
                  {
                    unused: {
                      capabilities: 'pull and resolve',
                      skipVerify: 'see backend.registries',
                      ca: 'see backend.registries',
                    },
                  },
                ),
              ),
            }),
          },
          {
            unused: { crio: 'containerd is the runtime that can be set up', podman: 'as before', docker: 'as before' },
          },
        ),
      },
      {
        unused: {
          verbose: 'it is part of this program',
          log: 'it is part of this program',
          proxy: 'the first peer’s is used',
        },
      },
    ),
  },
  { unused: { ...imageKeys, restartContainerRuntime: 'containerd is restarted by its operator only' } },
);

/** How containerd is to be made to use the first peer. */
export interface ContainerdValues {
  readonly registries: readonly MirroredRegistry[];
  readonly configFile: string;
  readonly injectConfigPath: boolean;
}

/** What `pantala up` runs, without ports and paths of this machine. */
export interface SwarmValues {
  readonly generation: Generation;
  /** False where everything has its default. */
  readonly fromFile: boolean;
  /** Undefined: none is to run. */
  readonly manager: { readonly options: ManagerOptions; readonly operation: Operation } | undefined;
  readonly scheduler: { readonly options: SchedulerOptions; readonly operation: Operation };
  readonly seed: PeerConfig | undefined;
  readonly peer: PeerConfig;
  /** False: the file wants no peers beside the seed. */
  readonly peers: boolean;
  readonly containerd: ContainerdValues | undefined;
  readonly warnings: readonly string[];
}

/** Upstream's port of metrics of the older generation, where the chart says only that they are wanted. */
const METRICS_ADDRESS = { host: '0.0.0.0', port: 8000 };

function peerConfig(generation: Generation): Decoder<PeerConfig> {
  return {
    decode: (node) => (node.absent ? defaultPeerConfig(generation) : decodePeerConfig(node, generation)),
  };
}

const today = part(peerConfig('today'));

const valuesSchema = section(
  {
    manager: part({ decode: decodeManager }),
    scheduler: part({ decode: decodeScheduler }),
    // The chart of the older generation.
    containerRuntime,
    dfdaemon: part(peerConfig('older')),
    seedPeer: part(peerConfig('older')),
    // Today's chart.
    client: section({ ...today.shape, dfinit }, { unused: today.unused }),
    seedClient: today,
  },
  {
    unused: {
      ...Object.fromEntries(
        ['global', 'nameOverride', 'fullnameOverride', 'namespaceOverride', 'clusterDomain', 'injector'].map((key) => [
          key,
          KUBERNETES,
        ]),
      ),
      ...Object.fromEntries(
        ['mysql', 'redis', 'externalMysql', 'externalRedis', 'jaeger', 'trainer', 'triton', 'externalManager'].map(
          (key) => [key, NO_SERVER],
        ),
      ),
    },
  },
);

/**
 * Reads values of a Dragonfly chart: `dfdaemon` and `seedPeer` of the older one, `client` and `seedClient` of today's.
 *
 * @throws `failed-precondition` naming every mistake with its place
 */
export function readValues(path: string | undefined): SwarmValues {
  const report = new ConfigReport();
  const node = path === undefined ? parseConfig('', 'defaults', report) : readConfig(path, report);
  const values = valuesSchema.decode(node);
  report.throwIfBad();
  const keys = new Set(node.entries?.map(({ key }) => key));
  const generation = ['dfdaemon', 'seedPeer'].some((key) => keys.has(key))
    ? 'older'
    : ['client', 'seedClient'].some((key) => keys.has(key)) || !keys.has('containerRuntime')
      ? 'today'
      : 'older';
  const [client, seedClient] =
    generation === 'older' ? [values.dfdaemon, values.seedPeer] : [values.client, values.seedClient];
  return {
    generation,
    fromFile: path !== undefined,
    manager: values.manager.enable === false ? undefined : measured(values.manager),
    scheduler: measured(values.scheduler),
    seed: seedClient.enable === false ? undefined : peerOf(seedClient, generation),
    peer: peerOf(client, generation),
    peers: client.enable !== false,
    containerd: containerdOf(values.containerRuntime.containerd, values.client.dfinit),
    warnings: report.warnings,
  };
}

interface Measured {
  readonly metrics: { readonly enable: boolean | undefined };
}

function measured<O extends { readonly operation: Operation }>(given: Measured & { readonly config: O }): O {
  const { operation } = given.config;
  if (given.metrics.enable !== true || operation.metrics !== undefined) return given.config;
  return { ...given.config, operation: { ...operation, metrics: METRICS_ADDRESS } };
}

/** Today's peers have metrics anyway; the older ones where the chart or the file says so. */
function peerOf(given: Measured & { readonly config: PeerConfig }, generation: Generation): PeerConfig {
  const { config } = given;
  if (given.metrics.enable === false) return { ...config, metrics: undefined };
  if (generation === 'today' || given.metrics.enable !== true || config.metrics !== undefined) return config;
  return { ...config, metrics: METRICS_ADDRESS };
}

function containerdOf(
  older: {
    readonly enable: boolean;
    readonly injectConfigPath: boolean;
    readonly configPathDir: string;
    readonly configFileName: string;
    readonly registries: readonly MirroredRegistry[];
  },
  init: ReturnType<(typeof dfinit)['decode']>,
): ContainerdValues | undefined {
  if (older.enable) {
    const name = older.configFileName === '' ? 'config.toml' : older.configFileName;
    return {
      registries: older.registries,
      configFile: `${older.configPathDir}/${name}`,
      injectConfigPath: older.injectConfigPath,
    };
  }
  const containerd = init?.enable === true ? init.config.containerRuntime.containerd : undefined;
  if (containerd === undefined) return undefined;
  const named = containerd.registries.map(({ hostNamespace, serverAddr }) => ({
    namespace: hostNamespace,
    server: serverAddr,
  }));
  return {
    registries: containerd.proxyAllRegistries ? [...named, ALL_REGISTRIES] : named,
    configFile: containerd.configPath,
    injectConfigPath: true,
  };
}
