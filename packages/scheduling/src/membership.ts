import type { ErrorCode } from '@pantala/base';
import type { Cluster } from './cluster.ts';
import { PENDING_SEED_PREFIX } from './cluster.ts';
import { Host, type HostFacts } from './host.ts';
import type { Peer } from './peer.ts';
import type { Task } from './task.ts';

/** Errors of a trigger that say something about the seed, and nothing about the task. */
const UNREACHABLE: readonly ErrorCode[] = [
  'unavailable',
  'deadline-exceeded',
  'unimplemented',
  'resource-exhausted',
  'cancelled',
];

/** Hosts that come, go, and (seeds) fail. */
export class Membership {
  readonly #cluster: Cluster;
  /** The host that was told that it is alone. */
  #lonely: Host | undefined;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  announce(facts: HostFacts): void {
    const cluster = this.#cluster;
    let host = cluster.hosts.get(facts.id);
    if (host === undefined) {
      if (cluster.hosts.size >= cluster.settings.maxHosts && !this.#forgetSilentest()) return;
      host = new Host(facts, cluster.now);
      cluster.hosts.set(facts.id, host);
    }
    const before = host.facts;
    host.announcedAt = cluster.now;
    const moved =
      before.idc !== facts.idc || before.disableShared !== facts.disableShared || before.seed !== facts.seed;
    if (moved) this.#withoutSupply(host, () => this.#replaceFacts(host, facts));
    else this.#replaceFacts(host, facts);
    if (host.seed) for (const task of waitingTasks(cluster)) cluster.woken.add(task);
  }

  #replaceFacts(host: Host, facts: HostFacts): void {
    host.facts = facts;
    this.#cluster.ring.update(host);
  }

  /** The places of suppliers depend on their host's facts. */
  #withoutSupply(host: Host, change: () => void): void {
    const states = peersOf(host).map((peer) => ({ peer, state: peer.state }));
    for (const { peer } of states) {
      peer.state = 'Leave';
      this.#cluster.refreshSupply(peer);
    }
    change();
    for (const { peer, state } of states) {
      peer.state = state;
      this.#cluster.refreshSupply(peer);
    }
  }

  connect(hostId: string): void {
    const cluster = this.#cluster;
    const host = cluster.hosts.get(hostId);
    if (host === undefined) return;
    host.connected = true;
    host.pantala = true;
    host.announcedAt = cluster.now;
    host.listing = new Set();
    cluster.ring.recover(host);
    for (const peer of peersOf(host)) {
      cluster.refreshSupply(peer);
      cluster.woken.add(peer.task);
    }
    if (host.seed) for (const task of waitingTasks(cluster)) cluster.woken.add(task);
    cluster.decide({ type: 'heldTasksWanted', hostId });
  }

  disconnect(hostId: string): void {
    const cluster = this.#cluster;
    const host = cluster.hosts.get(hostId);
    if (host === undefined || !host.connected) return;
    host.connected = false;
    host.disconnectedAt = cluster.now;
    host.listing = undefined;
    for (const taskId of host.watched) cluster.tasks.get(taskId)?.watchers.delete(hostId);
    host.watched.clear();
    for (const peer of peersOf(host)) {
      cluster.refreshSupply(peer);
      cluster.woken.add(peer.task);
    }
  }

  forget(host: Host): void {
    const cluster = this.#cluster;
    this.disconnect(host.id);
    for (const peer of peersOf(host)) cluster.removePeer(peer);
    cluster.ring.delete(host);
    cluster.hosts.delete(host.id);
    cluster.decide({ type: 'hostForgotten', hostId: host.id });
  }

  /** Tells the only host there is that it need not ask for leave to fetch, and takes that back when another comes. */
  tellCompany(): void {
    const cluster = this.#cluster;
    const [first] = cluster.hosts.size === 1 ? cluster.hosts.values() : [];
    const lonely = first?.connected === true && cluster.settings.backToSourceCount > 0 ? first : undefined;
    const before = this.#lonely;
    if (lonely === before) return;
    this.#lonely = lonely;
    if (before?.connected === true) cluster.decide({ type: 'company', hostId: before.id, alone: false });
    if (lonely !== undefined) cluster.decide({ type: 'company', hostId: lonely.id, alone: true });
  }

  #forgetSilentest(): boolean {
    let silentest: Host | undefined;
    for (const host of this.#cluster.hosts.values()) {
      if (host.connected) continue;
      if (silentest === undefined || host.announcedAt < silentest.announcedAt) silentest = host;
    }
    if (silentest === undefined) return false;
    this.forget(silentest);
    return true;
  }

  triggerProgressed(taskId: string, seedHostId: string): void {
    const task = this.#cluster.tasks.get(taskId);
    const seed = this.#cluster.hosts.get(seedHostId);
    if (task === undefined || seed === undefined) return;
    this.#cluster.ring.recover(seed);
    this.#cluster.sourceSign(task);
  }

  triggerEnded(taskId: string, seedHostId: string, error: ErrorCode | undefined): void {
    const cluster = this.#cluster;
    const task = cluster.tasks.get(taskId);
    const seed = cluster.hosts.get(seedHostId);
    if (error !== undefined && seed !== undefined && UNREACHABLE.includes(error)) {
      cluster.ring.fail(seed, cluster.settings, cluster.now);
    }
    if (task === undefined) return;
    cluster.woken.add(task);
    const trigger = task.trigger?.seedHostId === seedHostId ? task.trigger : undefined;
    if (trigger !== undefined) {
      trigger.running = Math.max(0, trigger.running - 1);
      if (error === undefined && seed !== undefined) return;
      if (trigger.running > 0) {
        // Another request runs there still; what this one was for may be asked for again.
        trigger.whole = false;
        trigger.ranges.length = 0;
        return;
      }
      task.trigger = undefined;
    }
    if (error === undefined) return;
    task.failedSeeds.set(seedHostId, cluster.now + cluster.settings.blockMs);
    const pending = task.peers.get(PENDING_SEED_PREFIX + seedHostId);
    if (pending !== undefined) cluster.removePeer(pending);
  }
}

export function peersOf(host: Host): Peer[] {
  return [...host.peersByTask.values()].flat();
}

function waitingTasks(cluster: Cluster): Set<Task> {
  return new Set([...cluster.waiting].map((peer) => peer.task));
}
