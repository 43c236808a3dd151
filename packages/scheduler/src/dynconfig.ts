import { type Logger, PantalaError, sleep } from '@pantala/base';
import type { SchedulingOptions } from '@pantala/scheduling';
import { ConfigReport, count, optionalSection, raw, readConfig, section } from '@pantala/service';
import type { Engine } from './engine.ts';

/** Upstream's dynconfig.yaml of a scheduler without a manager. Applications and block lists come later. */
const dynconfigFile = section({
  applications: raw,
  schedulerClusterConfig: optionalSection(
    { candidateParentLimit: count(), filterParentLimit: count() },
    { unused: { jobRateLimit: 'jobs are the manager’s' } },
  ),
  schedulerClusterClientConfig: optionalSection({ loadLimit: count(), blockList: raw }),
  seedPeerClusterConfig: optionalSection({ loadLimit: count(), blockList: raw }),
});

/** Limits of a cluster as the file has them. @throws `failed-precondition` naming every problem */
export function readDynconfig(path: string): SchedulingOptions {
  const report = new ConfigReport();
  const file = dynconfigFile.decode(readConfig(path, report));
  report.throwIfBad();
  return limits(
    file.schedulerClusterConfig?.candidateParentLimit,
    file.schedulerClusterConfig?.filterParentLimit,
    file.schedulerClusterClientConfig?.loadLimit,
    file.seedPeerClusterConfig?.loadLimit,
  );
}

/** Limits of a cluster as the manager has them: the JSON of its configurations, with snake case names. */
export function clusterLimits(cluster: unknown, client: unknown, seed: unknown): SchedulingOptions {
  return limits(
    numberOf(cluster, 'candidate_parent_limit'),
    numberOf(cluster, 'filter_parent_limit'),
    numberOf(client, 'load_limit'),
    numberOf(seed, 'load_limit'),
  );
}

/** Reads the file now and whenever its time has come. What cannot be read leaves the limits as they are. */
export function followDynconfig(path: string, interval: number, engine: Engine, logger: Logger): AsyncDisposable {
  const stopping = new AbortController();
  const refresh = () => {
    try {
      engine.core.configure(readDynconfig(path));
    } catch (error) {
      logger.warn('dynamic configuration not read', { path, error: PantalaError.from(error).message });
    }
  };
  const follow = async () => {
    while (!stopping.signal.aborted) {
      refresh();
      await sleep(interval, stopping.signal).catch(() => {});
    }
  };
  const following = follow();
  return {
    [Symbol.asyncDispose]: () => {
      stopping.abort(new PantalaError('cancelled', 'the scheduler stops'));
      return following;
    },
  };
}

function limits(
  candidateParentLimit: number | undefined,
  filterParentLimit: number | undefined,
  uploadLimit: number | undefined,
  seedUploadLimit: number | undefined,
): SchedulingOptions {
  return {
    ...(candidateParentLimit === undefined ? {} : { candidateParentLimit }),
    ...(filterParentLimit === undefined ? {} : { filterParentLimit }),
    ...(uploadLimit === undefined ? {} : { uploadLimit }),
    ...(seedUploadLimit === undefined ? {} : { seedUploadLimit }),
  };
}

function numberOf(config: unknown, key: string): number | undefined {
  if (typeof config !== 'object' || config === null) return undefined;
  const value: unknown = (config as Readonly<Record<string, unknown>>)[key];
  return typeof value === 'number' && Number.isInteger(value) && value > 0 ? value : undefined;
}
