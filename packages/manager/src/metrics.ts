import type { Counter, Metrics } from '@pantala/base';

/** What the manager counts, under upstream's names. */
export interface ManagerMetrics {
  /** Without upstream's labels: what askers say of themselves could be anything, and each value is kept for ever. */
  readonly searches: Counter;
  readonly failedSearches: Counter;
}

export function managerMetrics(metrics: Metrics): ManagerMetrics {
  metrics
    .gauge('dragonfly_manager_version', { help: 'Which program this is.', labels: ['git_version', 'platform'] })
    .set(1, { git_version: 'pantala', platform: process.platform });
  return {
    searches: metrics.counter('dragonfly_manager_search_scheduler_cluster_total', {
      help: 'Questions of peers for their schedulers.',
    }),
    failedSearches: metrics.counter('dragonfly_manager_search_scheduler_cluster_failure_total', {
      help: 'Those that failed.',
    }),
  };
}
