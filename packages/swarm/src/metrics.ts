import type { Counter, Gauge, Histogram, Metrics } from '@pantala/base';

/** What the swarm counts. Names that upstream's peers have too are upstream's. */
export interface SwarmMetrics {
  /** Bytes by `type`: BACK_TO_SOURCE, REMOTE_PEER, LOCAL_PEER. */
  readonly traffic: Counter;
  readonly tasks: Counter;
  readonly failedTasks: Counter;
  readonly runningTasks: Gauge;
  readonly taskDuration: Histogram;
  /** Bytes asked of the origin because a parent was silent: none in a run without a fault. */
  readonly hedged: Counter;
  /** Bytes from Dragonfly peers that nothing could be checked against. */
  readonly unverified: Counter;
  readonly badParents: Counter;
}

export function swarmMetrics(metrics: Metrics): SwarmMetrics {
  return {
    traffic: metrics.counter('dragonfly_client_download_traffic', {
      help: 'Bytes downloaded, by where they came from.',
      labels: ['type'],
    }),
    tasks: metrics.counter('dragonfly_client_download_task_total', { help: 'Tasks begun.' }),
    failedTasks: metrics.counter('dragonfly_client_download_task_failure_total', { help: 'Tasks that failed.' }),
    runningTasks: metrics.gauge('dragonfly_client_concurrent_download_task_total', { help: 'Tasks in progress.' }),
    taskDuration: metrics.histogram('dragonfly_client_download_task_duration_milliseconds', {
      help: 'Milliseconds from the first request to the last block.',
      buckets: [10, 50, 100, 500, 1000, 5000, 10_000, 30_000, 60_000, 300_000, 1_200_000],
    }),
    hedged: metrics.counter('pantala_swarm_hedged_bytes_total', {
      help: 'Bytes asked of the origin for a waiting reader because a parent was silent.',
    }),
    unverified: metrics.counter('pantala_swarm_unverified_bytes_total', {
      help: 'Bytes from peers of upstream that could be checked against nothing but their own CRC-32.',
    }),
    badParents: metrics.counter('pantala_swarm_bad_parents_total', { help: 'Parents that gave wrong bytes.' }),
  };
}
