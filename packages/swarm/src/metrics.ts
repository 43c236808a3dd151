import {
  type Counter,
  DURATION_BUCKETS,
  type Gauge,
  type Histogram,
  type Labels,
  type Metrics,
  taskSizeLevel,
} from '@pantala/base';

/** What the swarm counts. Names that upstream's peers have too are upstream's. */
export interface SwarmMetrics {
  /** Bytes by `type`: BACK_TO_SOURCE, REMOTE_PEER, LOCAL_PEER. */
  readonly traffic: Counter;
  readonly tasks: Counter;
  readonly failedTasks: Counter;
  readonly runningTasks: Gauge;
  /** With `taskLabels`. */
  readonly taskDuration: Histogram;
  readonly prefetches: Counter;
  readonly failedPrefetches: Counter;
  /** Requests that were answered from the store alone. */
  readonly hits: Counter;
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
      labels: ['task_type', 'task_size_level'],
      buckets: DURATION_BUCKETS,
    }),
    prefetches: metrics.counter('dragonfly_client_prefetch_task_total', { help: 'Tasks fetched ahead of readers.' }),
    failedPrefetches: metrics.counter('dragonfly_client_prefetch_task_failure_total', {
      help: 'Tasks fetched ahead of readers that did not become whole.',
    }),
    hits: metrics.counter('pantala_task_hits_total', { help: 'Requests answered from the store alone.' }),
    hedged: metrics.counter('pantala_swarm_hedged_bytes_total', {
      help: 'Bytes asked of the origin for a waiting reader because a parent was silent.',
    }),
    unverified: metrics.counter('pantala_swarm_unverified_bytes_total', {
      help: 'Bytes from peers of upstream that could be checked against nothing but their own CRC-32.',
    }),
    badParents: metrics.counter('pantala_swarm_bad_parents_total', { help: 'Parents that gave wrong bytes.' }),
  };
}

/** Labels of a task's durations. */
export function taskLabels(contentLength: number): Labels {
  return { task_type: 'STANDARD', task_size_level: `${taskSizeLevel(contentLength)}` };
}
