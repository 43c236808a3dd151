import { Authority } from './authority.ts';
import { Cluster } from './cluster.ts';
import { Collector } from './collector.ts';
import type { Decision } from './decisions.ts';
import { Downloads } from './downloads.ts';
import type { SchedulerEvent } from './events.ts';
import type { Host } from './host.ts';
import { Membership } from './membership.ts';
import { compileSchedulingOptions, type SchedulingOptions, type SchedulingSettings, WAKE_ROUNDS } from './options.ts';
import type { Peer } from './peer.ts';
import { Placement } from './placement.ts';
import type { Task } from './task.ts';

/** Sizes of what the scheduler knows. */
export interface SchedulerCounts {
  readonly hosts: number;
  readonly tasks: number;
  readonly peers: number;
  readonly edges: number;
  readonly waiting: number;
  readonly digestBytes: number;
}

/**
 * Decides who serves whom. Events go in, decisions come out; there are no sockets, no clock and no randomness, so the
 * same events at the same times always give the same decisions.
 */
export class SchedulerCore {
  readonly #settings: SchedulingSettings;
  readonly #cluster: Cluster;
  readonly #placement: Placement;
  readonly #downloads: Downloads;
  readonly #membership: Membership;
  readonly #authority: Authority;
  readonly #collector: Collector;

  constructor(options: SchedulingOptions = {}) {
    this.#settings = compileSchedulingOptions(options);
    this.#cluster = new Cluster(this.#settings);
    this.#placement = new Placement(this.#cluster);
    this.#downloads = new Downloads(this.#cluster, this.#placement);
    this.#membership = new Membership(this.#cluster);
    this.#authority = new Authority(this.#cluster);
    this.#collector = new Collector(this.#cluster, this.#membership, this.#authority);
  }

  /**
   * @param now milliseconds of a clock that never goes back
   * @throws `resource-exhausted` when a limit stops an event that has no stream to tell it to
   */
  handle(event: SchedulerEvent, now: number): Decision[] {
    this.#cluster.now = Math.max(now, this.#cluster.now);
    this.#apply(event);
    this.#wake();
    this.#membership.tellCompany();
    return this.#cluster.takeDecisions();
  }

  /** Changes limits while it runs; what is beyond a new limit stays until it ends by itself. */
  configure(options: SchedulingOptions): void {
    Object.assign(this.#settings, options);
  }

  /** When the next `tick` has something to do; nothing is lost when it comes later. */
  get nextTickAt(): number {
    const first = this.#cluster.waiting.values().next().value;
    const attention = first?.attentionAt ?? Number.POSITIVE_INFINITY;
    const collection =
      this.#cluster.hosts.size + this.#cluster.tasks.size > 0 ? this.#collector.dueAt : Number.POSITIVE_INFINITY;
    return Math.min(attention, this.#cluster.flushAt, collection);
  }

  get counts(): SchedulerCounts {
    return {
      hosts: this.#cluster.hosts.size,
      tasks: this.#cluster.tasks.size,
      peers: this.#cluster.peerCount,
      edges: this.#cluster.graph.edges,
      waiting: this.#cluster.waiting.size,
      digestBytes: this.#authority.digestBytes,
    };
  }

  hosts(): IterableIterator<Host> {
    return this.#cluster.hosts.values();
  }

  host(hostId: string): Host | undefined {
    return this.#cluster.hosts.get(hostId);
  }

  tasks(): IterableIterator<Task> {
    return this.#cluster.tasks.values();
  }

  task(taskId: string): Task | undefined {
    return this.#cluster.tasks.get(taskId);
  }

  peer(taskId: string, peerId: string): Peer | undefined {
    return this.#cluster.peer(taskId, peerId);
  }

  /** One answer may allow another; what is not settled after some rounds is the next tick's. */
  #wake(): void {
    const { woken } = this.#cluster;
    for (let round = 0; round < WAKE_ROUNDS && woken.size > 0; round++) {
      const tasks = [...woken];
      woken.clear();
      for (const task of tasks) if (task.peers.size > 0) this.#placement.wake(task);
    }
    if (woken.size > 0) this.#cluster.flushAt = this.#cluster.now;
  }

  #apply(event: SchedulerEvent): void {
    switch (event.type) {
      case 'hostAnnounced':
        this.#membership.announce(event.host);
        break;
      case 'hostDeleted': {
        const host = this.#cluster.hosts.get(event.hostId);
        if (host !== undefined) this.#membership.forget(host);
        break;
      }
      case 'hostConnected':
        this.#membership.connect(event.hostId);
        break;
      case 'hostDisconnected':
        this.#membership.disconnect(event.hostId);
        break;
      case 'peerRegistered':
        this.#downloads.register(event);
        break;
      case 'taskDeleted': {
        const host = this.#cluster.hosts.get(event.hostId);
        if (host !== undefined) this.#authority.dropCopies(host, event.taskId);
        break;
      }
      case 'heldTasks':
        this.#authority.held(event.hostId, event.tasks, event.completeList);
        break;
      case 'digestsReported':
        this.#authority.reported(event.hostId, event.taskId, event.report);
        break;
      case 'digestsWatched':
        this.#authority.watched(event.hostId, event.taskId);
        break;
      case 'digestsUnwatched':
        this.#authority.unwatched(event.hostId, event.taskId);
        break;
      case 'wholeDigestMismatch':
        this.#authority.wholeMismatch(event.hostId, event.taskId);
        break;
      case 'seedTriggerProgressed':
        this.#membership.triggerProgressed(event.taskId, event.seedHostId);
        break;
      case 'seedTriggerEnded':
        this.#membership.triggerEnded(event.taskId, event.seedHostId, event.error);
        break;
      case 'tick':
        this.#collector.collect();
        this.#placement.attend();
        break;
      case 'peerStarted':
      case 'backToSourceStarted':
      case 'pieceFinished':
      case 'pieceFailed':
      case 'rescheduled':
      case 'peerFinished':
      case 'backToSourceFinished':
      case 'peerFailed':
      case 'backToSourceFailed':
      case 'streamClosed':
      case 'peerDeleted':
      case 'badParentReported': {
        const peer = this.#cluster.peer(event.taskId, event.peerId);
        if (peer !== undefined && peer.host.id === event.hostId) this.#applyToPeer(peer, event);
        else if (ENDS.has(event.type)) {
          this.#cluster.decide({ type: 'closeStream', taskId: event.taskId, peerId: event.peerId });
        }
      }
    }
  }

  #applyToPeer(peer: Peer, event: Extract<SchedulerEvent, { peerId: string }>): void {
    switch (event.type) {
      case 'peerRegistered':
        break;
      case 'peerStarted':
        this.#downloads.started(peer);
        break;
      case 'backToSourceStarted':
        this.#downloads.backToSourceStarted(peer);
        break;
      case 'pieceFinished':
        this.#downloads.pieceFinished(peer, event);
        break;
      case 'pieceFailed':
        this.#downloads.pieceFailed(peer, event.parentId);
        break;
      case 'rescheduled':
        this.#downloads.rescheduled(peer, event.badParentIds);
        break;
      case 'peerFinished':
      case 'backToSourceFinished':
        this.#downloads.finished(peer);
        break;
      case 'peerFailed':
      case 'backToSourceFailed':
        this.#downloads.failed(peer);
        break;
      case 'streamClosed':
        this.#downloads.streamClosed(peer);
        break;
      case 'peerDeleted':
        this.#cluster.removePeer(peer);
        break;
      case 'badParentReported':
        this.#authority.badParent(peer, event.parentId);
        break;
    }
  }
}

/** A stream that says this is ended even when its peer is not known any more. */
const ENDS: ReadonlySet<SchedulerEvent['type']> = new Set([
  'peerFinished',
  'backToSourceFinished',
  'peerFailed',
  'backToSourceFailed',
]);
