import { type Counter, DURATION_BUCKETS, type Histogram, type Labels, type Metrics } from '@pantala/base';

const PREFIX = 'dragonfly_scheduler_';

/** A call's count and that of its failures, as upstream names them. */
export class CallMetrics {
  readonly #total: Counter;
  readonly #failures: Counter;

  constructor(metrics: Metrics, name: string, labels: readonly string[] = []) {
    this.#total = metrics.counter(`${PREFIX}${name}_total`, { help: `Calls of ${name}`, labels });
    this.#failures = metrics.counter(`${PREFIX}${name}_failure_total`, { help: `Failed calls of ${name}`, labels });
  }

  count(labels?: Labels): void {
    this.#total.add(1, labels);
  }

  fail(labels?: Labels): void {
    this.#failures.add(1, labels);
  }
}

const PEER_LABELS = ['priority', 'task_type', 'host_type'];

/** Everything that the scheduler counts, under upstream's names. */
export class SchedulerMetrics {
  readonly announcePeer: CallMetrics;
  readonly statPeer: CallMetrics;
  readonly leavePeer: CallMetrics;
  readonly statTask: CallMetrics;
  readonly leaveTask: CallMetrics;
  readonly announceHost: CallMetrics;
  readonly listHosts: CallMetrics;
  readonly leaveHost: CallMetrics;
  readonly registerPeer: CallMetrics;
  readonly peerStarted: CallMetrics;
  readonly backToSourceStarted: CallMetrics;
  readonly peerFinished: CallMetrics;
  readonly backToSourceFinished: CallMetrics;
  readonly pieceFinished: CallMetrics;
  readonly backToSourcePieceFinished: CallMetrics;
  readonly traffic: Counter;
  readonly hostTraffic: Counter | undefined;
  /** Milliseconds from a question for parents to its answer. Upstream has summaries: sum and count are the same. */
  readonly scheduleDuration: Histogram;
  /** Milliseconds of downloads that ended well, by `task_size_level`. */
  readonly peerDuration: Histogram;

  constructor(metrics: Metrics, hostMetrics: boolean) {
    this.announcePeer = new CallMetrics(metrics, 'announce_peer');
    this.statPeer = new CallMetrics(metrics, 'stat_peer');
    this.leavePeer = new CallMetrics(metrics, 'leave_peer');
    this.statTask = new CallMetrics(metrics, 'stat_task');
    this.leaveTask = new CallMetrics(metrics, 'leave_task');
    this.announceHost = new CallMetrics(metrics, 'announce_host');
    this.listHosts = new CallMetrics(metrics, 'list_hosts');
    this.leaveHost = new CallMetrics(metrics, 'leave_host');
    this.registerPeer = new CallMetrics(metrics, 'register_peer', PEER_LABELS);
    this.peerStarted = new CallMetrics(metrics, 'download_peer_started', PEER_LABELS);
    this.backToSourceStarted = new CallMetrics(metrics, 'download_peer_back_to_source_started', PEER_LABELS);
    this.peerFinished = new CallMetrics(metrics, 'download_peer_finished', PEER_LABELS);
    this.backToSourceFinished = new CallMetrics(metrics, 'download_peer_back_to_source_finished', PEER_LABELS);
    this.pieceFinished = new CallMetrics(metrics, 'download_piece_finished', [
      'traffic_type',
      'task_type',
      'host_type',
    ]);
    this.backToSourcePieceFinished = new CallMetrics(metrics, 'download_piece_back_to_source_finished', [
      'traffic_type',
      'task_type',
      'host_type',
    ]);
    this.traffic = metrics.counter(`${PREFIX}traffic`, {
      help: 'Bytes that peers reported, by where they came from',
      labels: ['type', 'task_type', 'host_type'],
    });
    this.scheduleDuration = metrics.histogram(`${PREFIX}schedule_duration_milliseconds`, {
      help: 'Milliseconds until a peer that asked for parents was answered',
      buckets: DURATION_BUCKETS,
    });
    this.peerDuration = metrics.histogram(`${PREFIX}download_peer_duration_milliseconds`, {
      help: 'Milliseconds of downloads that ended well',
      labels: ['task_size_level'],
      buckets: DURATION_BUCKETS,
    });
    this.hostTraffic = hostMetrics
      ? metrics.counter(`${PREFIX}host_traffic`, {
          help: 'Bytes that peers reported, by host',
          labels: ['type', 'task_type', 'host_type', 'host_id', 'host_ip', 'host_name'],
        })
      : undefined;
  }
}

/** What upstream's dashboards ask of every scheduler. @param waiting peers that wait for an answer */
export function exposeState(metrics: Metrics, waiting: () => number): void {
  metrics.gauge(`${PREFIX}concurrent_schedule_total`, { help: 'Peers that wait for parents', collect: waiting });
  metrics
    .gauge(`${PREFIX}version`, { help: 'Which program this is', labels: ['git_version', 'platform'] })
    .set(1, { git_version: 'pantala', platform: process.platform });
}

/** Sizes of the scheduler's knowledge, collected when they are asked for; Pantala's own names. */
export function exposeCounts(metrics: Metrics, counts: () => Readonly<Record<string, number>>): void {
  for (const name of Object.keys(counts())) {
    const snake = name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
    metrics.gauge(`pantala_scheduler_${snake}`, {
      help: `The scheduler's ${snake.replaceAll('_', ' ')}`,
      collect: () => counts()[name] ?? 0,
    });
  }
}
