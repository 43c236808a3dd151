import type { Counter, Gauge, Histogram, Labels, MetricOptions, Metrics } from '@pantala/base';

/** Counters of the older generation that still mean something, by the name of today's. */
const OLDER_NAMES: ReadonlyMap<string, string> = new Map([
  ['dragonfly_client_proxy_request_total', 'dragonfly_dfdaemon_proxy_request_total'],
  ['dragonfly_client_proxy_request_via_dfdaemon_total', 'dragonfly_dfdaemon_proxy_request_via_dragonfly_total'],
  ['pantala_proxy_requests_running', 'dragonfly_dfdaemon_proxy_request_running_total'],
  ['dragonfly_client_download_task_total', 'dragonfly_dfdaemon_peer_task_total'],
  ['dragonfly_client_download_task_failure_total', 'dragonfly_dfdaemon_peer_task_failed_total'],
  ['dragonfly_client_prefetch_task_total', 'dragonfly_dfdaemon_prefetch_task_total'],
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

/** What the gRPC services of a peer count, under upstream's names. */
export interface ServiceMetrics {
  readonly uploadTasks: Counter;
  readonly uploadTaskFailures: Counter;
  readonly runningUploadTasks: Gauge;
  readonly stats: Counter;
  readonly localStats: Counter;
  readonly lists: Counter;
  readonly deletes: Counter;
  readonly hostDeletes: Counter;
}

export function serviceMetrics(metrics: Metrics): ServiceMetrics {
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
    stats: metrics.counter('dragonfly_client_stat_task_total', { help: 'Questions for the state of a task.' }),
    localStats: metrics.counter('dragonfly_client_stat_local_task_total', {
      help: 'Questions for what this host holds of a task.',
    }),
    lists: metrics.counter('dragonfly_client_list_local_tasks_total', { help: 'Questions for all tasks held.' }),
    deletes: metrics.counter('dragonfly_client_delete_task_total', { help: 'Tasks to delete.' }),
    hostDeletes: metrics.counter('dragonfly_client_delete_host_total', { help: 'Orders to leave the cluster.' }),
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
