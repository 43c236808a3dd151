import {
  type Counter,
  DURATION_BUCKETS,
  type Gauge,
  type Histogram,
  type Labels,
  type MetricOptions,
  type Metrics,
} from '@pantala/base';

/** Counters of the older generation that still mean something, by the name of today's. */
const OLDER_NAMES: ReadonlyMap<string, string> = new Map([
  ['dragonfly_client_proxy_request_total', 'dragonfly_dfdaemon_proxy_request_total'],
  ['dragonfly_client_proxy_request_via_dfdaemon_total', 'dragonfly_dfdaemon_proxy_request_via_dragonfly_total'],
  ['pantala_proxy_requests_running', 'dragonfly_dfdaemon_proxy_request_running_total'],
  ['dragonfly_client_download_task_total', 'dragonfly_dfdaemon_peer_task_total'],
  ['dragonfly_client_download_task_failure_total', 'dragonfly_dfdaemon_peer_task_failed_total'],
  ['dragonfly_client_prefetch_task_total', 'dragonfly_dfdaemon_prefetch_task_total'],
  ['pantala_task_hits_total', 'dragonfly_dfdaemon_peer_task_cache_hit_total'],
  ['pantala_proxy_request_direct_total', 'dragonfly_dfdaemon_proxy_request_not_via_dragonfly_total'],
  ['dragonfly_client_version', 'dragonfly_dfdaemon_version'],
  ['dragonfly_client_concurrent_upload_task_total', 'dragonfly_dfdaemon_seed_peer_concurrent_download_total'],
  ['dragonfly_client_upload_task_total', 'dragonfly_dfdaemon_seed_peer_download_total'],
  ['dragonfly_client_upload_task_failure_total', 'dragonfly_dfdaemon_seed_peer_download_failure_total'],
]);

/** Counts under the older generation's name as well, where there is one, so that dashboards of both go on working. */
export function withOlderNames(metrics: Metrics): Metrics {
  const both = <T>(name: string, make: (name: string) => T, join: (today: T, older: T) => T): T => {
    const older = OLDER_NAMES.get(name);
    return older === undefined ? make(name) : join(make(name), make(older));
  };
  return {
    counter: (name: string, options: MetricOptions): Counter =>
      both(
        name,
        (known) => metrics.counter(known, options),
        (today, older) => ({
          add(amount?: number, labels?: Labels) {
            today.add(amount, labels);
            older.add(amount, labels);
          },
        }),
      ),
    gauge: (name, options): Gauge =>
      both(
        name,
        (known) => metrics.gauge(known, options),
        (today, older) => ({
          set(value: number, labels?: Labels) {
            today.set(value, labels);
            older.set(value, labels);
          },
          add(amount: number, labels?: Labels) {
            today.add(amount, labels);
            older.add(amount, labels);
          },
        }),
      ),
    histogram: (name, options): Histogram => metrics.histogram(name, options),
  };
}

/** Calls of one kind, and those that failed. */
export class CallCount {
  readonly #total: Counter;
  readonly #failures: Counter;

  /** @param failures upstream's name of the failures, where it is not the usual one */
  constructor(metrics: Metrics, name: string, help: string, failures = `${name}_failure`) {
    this.#total = metrics.counter(`dragonfly_client_${name}_total`, { help });
    this.#failures = metrics.counter(`dragonfly_client_${failures}_total`, { help: `Those that failed: ${help}` });
  }

  async of<T>(work: () => Promise<T>): Promise<T> {
    this.#total.add();
    try {
      return await work();
    } catch (error) {
      this.#failures.add();
      throw error;
    }
  }
}

/** What the gRPC services of a peer count, under upstream's names. */
export interface ServiceMetrics {
  readonly uploadTasks: Counter;
  readonly uploadTaskFailures: Counter;
  readonly runningUploadTasks: Gauge;
  readonly uploadDuration: Histogram;
  readonly stats: CallCount;
  readonly localStats: CallCount;
  readonly lists: CallCount;
  readonly entryLists: CallCount;
  readonly deletes: CallCount;
  readonly localDeletes: CallCount;
  readonly hostDeletes: CallCount;
}

export function serviceMetrics(metrics: Metrics): ServiceMetrics {
  const calls = (name: string, help: string, failures?: string) => new CallCount(metrics, name, help, failures);
  return {
    uploadTasks: metrics.counter('dragonfly_client_upload_task_total', {
      help: 'Tasks that a scheduler or another peer told this one to download.',
    }),
    uploadTaskFailures: metrics.counter('dragonfly_client_upload_task_failure_total', {
      help: 'Those of them that failed.',
    }),
    runningUploadTasks: metrics.gauge('dragonfly_client_concurrent_upload_task_total', {
      help: 'Those of them in progress.',
    }),
    uploadDuration: metrics.histogram('dragonfly_client_upload_task_duration_milliseconds', {
      help: 'Milliseconds that those took that ended well.',
      labels: ['task_type', 'task_size_level'],
      buckets: DURATION_BUCKETS,
    }),
    stats: calls('stat_task', 'Questions for the state of a task.'),
    localStats: calls('stat_local_task', 'Questions for what this host holds of a task.'),
    lists: calls('list_local_tasks', 'Questions for all tasks held.', 'list_tasks_failure'),
    entryLists: calls('list_task_entries', 'Questions for the entries of a directory.'),
    deletes: calls('delete_task', 'Tasks to delete.'),
    localDeletes: calls('delete_local_task', 'Tasks to delete on this host alone.'),
    hostDeletes: calls('delete_host', 'Orders to leave the cluster.'),
  };
}

/** Gauges that are read when they are asked for. */
export function exposeGauges(metrics: Metrics, disk: () => { readonly total: number; readonly used: number }): void {
  metrics
    .gauge('dragonfly_client_version', {
      help: 'Which program this is.',
      labels: ['git_version', 'git_commit', 'platform', 'build_time'],
    })
    .set(1, { git_version: 'pantala', git_commit: '', platform: process.platform, build_time: '' });
  metrics.gauge('dragonfly_client_disk_space_total', {
    help: 'Bytes of the file system that the store is on.',
    collect: () => disk().total,
  });
  metrics.gauge('dragonfly_client_disk_usage_space_total', {
    help: 'Bytes of it that are in use.',
    collect: () => disk().used,
  });
}
