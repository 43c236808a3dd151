import type { Counter, Labels, Metrics } from '@pantala/base';

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
    this.hostTraffic = hostMetrics
      ? metrics.counter(`${PREFIX}host_traffic`, {
          help: 'Bytes that peers reported, by host',
          labels: ['type', 'task_type', 'host_type', 'host_id', 'host_ip', 'host_name'],
        })
      : undefined;
  }
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
