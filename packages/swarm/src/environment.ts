import type { Logger, RateLimiter } from '@pantala/base';
import type { TaskStore } from '@pantala/store';
import type { Origin } from '@pantala/transfer';
import type { SwarmMetrics } from './metrics.ts';
import type { SwarmOptions } from './options.ts';
import type { ParentHosts } from './parents/parent-hosts.ts';
import type { Schedulers } from './schedulers/schedulers.ts';
import type { WholeDigests } from './whole-digest/whole-digest.ts';

/** What every download of this process shares. */
export interface Environment {
  readonly options: SwarmOptions;
  readonly store: TaskStore;
  readonly origin: Origin;
  readonly schedulers: Schedulers;
  readonly hosts: ParentHosts;
  readonly wholeDigests: WholeDigests;
  readonly metrics: SwarmMetrics;
  /** What prefetches ask for is paid here. */
  readonly prefetchLimiter: RateLimiter | undefined;
  readonly logger: Logger;
}
