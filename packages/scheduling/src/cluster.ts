import { PantalaError } from '@pantala/base';
import type { Decision } from './decisions.ts';
import { Graph } from './graph.ts';
import type { Host } from './host.ts';
import { IndexedSet } from './indexed-set.ts';
import type { SchedulingSettings } from './options.ts';
import { Peer } from './peer.ts';
import { healthy, SeedRing } from './seeds.ts';
import { covers, Task, type WantedRange } from './task.ts';

/** Prefix of the id under which a seed is named that was triggered and has not registered yet; its host id follows. */
export const PENDING_SEED_PREFIX = 'pending:';

/** What the scheduler knows, and what it is about to do. Every part of the core works on the one cluster. */
export class Cluster {
  readonly settings: SchedulingSettings;
  readonly hosts = new Map<string, Host>();
  readonly tasks = new Map<string, Task>();
  readonly ring = new SeedRing();
  readonly graph: Graph;
  /** Peers without an answer, in the order in which the tick looks at them. */
  readonly waiting = new Set<Peer>();
  /** Peers whose parents changed or are to be looked at again. */
  readonly dirty = new Set<Peer>();
  /** Tasks whose waiting peers may find something now. */
  readonly woken = new Set<Task>();
  flushAt = Number.POSITIVE_INFINITY;
  now = 0;
  peerCount = 0;
  /** Mixed into draws, so that two choices of one peer differ. */
  draws = 0;
  #decisions: Decision[] = [];

  constructor(settings: SchedulingSettings) {
    this.settings = settings;
    this.graph = new Graph(settings, (host) => this.#wakeTasksOf(host));
  }

  decide(decision: Decision): void {
    this.#decisions.push(decision);
  }

  takeDecisions(): Decision[] {
    const decisions = this.#decisions;
    this.#decisions = [];
    return decisions;
  }

  peer(taskId: string, peerId: string): Peer | undefined {
    return this.tasks.get(taskId)?.peers.get(peerId);
  }

  /** A parent as children name it: its id, or that of a seed that had none when they were told of it. */
  parent(task: Task, parentId: string): Peer | undefined {
    const known = task.peers.get(parentId);
    if (known !== undefined || !parentId.startsWith(PENDING_SEED_PREFIX)) return known;
    return this.hosts.get(parentId.slice(PENDING_SEED_PREFIX.length))?.peersByTask.get(task.id)?.[0];
  }

  /** @throws `resource-exhausted` when there are too many tasks and none is abandoned. */
  obtainTask(id: string): Task {
    const known = this.tasks.get(id);
    if (known !== undefined) return known;
    if (this.tasks.size >= this.settings.maxTasks) {
      throw new PantalaError('resource-exhausted', `the scheduler knows ${this.tasks.size} tasks, its limit`);
    }
    const task = new Task(id, this.now);
    this.tasks.set(id, task);
    return task;
  }

  /** @throws `resource-exhausted` when there are too many peers, of the task or altogether. */
  obtainPeer(id: string, task: Task, host: Host): Peer {
    const known = task.peers.get(id);
    if (known !== undefined && known.host === host) return known;
    if (known !== undefined) this.removePeer(known);
    if (task.peers.size >= this.settings.maxPeersPerTask || this.peerCount >= this.settings.maxPeers) {
      const idle = this.#idlePeer(task);
      if (idle === undefined) throw new PantalaError('resource-exhausted', `task ${task.id} has too many peers`);
      this.removePeer(idle);
    }
    const peer = new Peer(id, task, host, this.now);
    task.peers.set(id, peer);
    host.attach(peer);
    this.peerCount++;
    return peer;
  }

  /** The peer that has done nothing for longest and that nobody needs. Peers are in the order of their coming. */
  #idlePeer(task: Task): Peer | undefined {
    for (const peer of task.peers.values()) {
      if (!peer.streaming && peer.children.size === 0 && peer.parents.size === 0) return peer;
    }
    return undefined;
  }

  removePeer(peer: Peer): void {
    this.detach(peer);
    if (peer.streaming) {
      // Nobody would ever answer it again.
      peer.streaming = false;
      const message = `peer ${peer.id} was forgotten; register it again`;
      this.decide({ type: 'failPeer', taskId: peer.task.id, peerId: peer.id, code: 'not-found', message });
    }
    peer.step('leave');
    peer.complete = false;
    this.refreshSupply(peer);
    if (peer.task.peers.get(peer.id) === peer) peer.task.peers.delete(peer.id);
    peer.host.detach(peer);
    this.peerCount--;
    const { task } = peer;
    if (task.trigger?.seedHostId === peer.host.id && task.trigger.running === 0) task.trigger = undefined;
    this.woken.add(task);
  }

  /** Takes a peer out of the graph: its children look for others. */
  detach(peer: Peer): void {
    this.stopWaiting(peer);
    peer.granted = false;
    peer.task.granted.delete(peer);
    this.dirty.delete(peer);
    this.graph.dropParents(peer);
    for (const child of this.graph.dropChildren(peer)) this.markDirty(child);
  }

  startWaiting(peer: Peer): void {
    if (peer.waitingSince !== undefined) return;
    peer.waitingSince = this.now;
    peer.attentionAt = this.now + this.settings.patienceMs;
    this.waiting.add(peer);
    peer.task.waiting.add(peer);
  }

  stopWaiting(peer: Peer): void {
    peer.waitingSince = undefined;
    this.waiting.delete(peer);
    peer.task.waiting.delete(peer);
  }

  /** Only Pantala peers may be told of new parents without having asked. */
  markDirty(peer: Peer): void {
    if (!peer.pantala || !peer.active || peer.host.seed) return;
    peer.stale = true;
    if (this.dirty.size === 0) this.flushAt = this.now + this.settings.meshFlushMs;
    this.dirty.add(peer);
  }

  /** Brings a peer's place among the suppliers of its task up to date with its state. */
  refreshSupply(peer: Peer): void {
    const { task, host } = peer;
    const supplies = canSupply(peer);
    const idc = host.facts.idc.toLowerCase();
    let local = task.suppliersByIdc.get(idc);
    if (supplies) {
      if (local === undefined) {
        local = new IndexedSet();
        task.suppliersByIdc.set(idc, local);
      }
      task.suppliers.add(peer);
      local.add(peer);
    } else {
      task.suppliers.delete(peer);
      local?.delete(peer);
      if (local?.size === 0) task.suppliersByIdc.delete(idc);
    }
    setMember(task.seeds, peer, supplies && host.seed);
    setMember(task.fetchers, peer, supplies && !host.seed && (peer.granted || peer.state === 'BackToSource'));
    if (supplies && peer.complete) task.copies.add(peer);
    else task.copies.delete(peer);
    if (!supplies) for (const child of peer.children) this.markDirty(child);
  }

  /** The source of a task was heard of. */
  sourceSign(task: Task): void {
    task.sourceDeadline = this.now + this.settings.sourcePatienceMs;
  }

  /**
   * Whether somebody has what is wanted of the task, or fetches it and was heard of lately. A Pantala seed that has
   * registered fetches whatever it is asked for; its stream says that it lives.
   */
  hasSource(task: Task, wanted: WantedRange | undefined): boolean {
    if (task.copies.size > 0) return true;
    for (const seed of task.seeds) {
      if (seed.pantala && seed.state !== 'Pending' && healthy(seed.host, this.now)) return true;
    }
    if (this.now >= task.sourceDeadline) return false;
    for (const seed of task.seeds) if (covers(seed.range, wanted)) return true;
    for (const fetcher of task.fetchers) if (covers(fetcher.range, wanted)) return true;
    const { trigger } = task;
    if (trigger === undefined || trigger.running === 0) return false;
    return trigger.whole || trigger.ranges.some((range) => covers(range, wanted));
  }

  #wakeTasksOf(host: Host): void {
    for (const peer of this.waiting) if (host.peersByTask.has(peer.task.id)) this.woken.add(peer.task);
  }
}

function canSupply(peer: Peer): boolean {
  const { host, task } = peer;
  if (host.facts.disableShared || !host.reachable || task.blockedHosts.has(host.id)) return false;
  switch (peer.state) {
    case 'Running':
    case 'BackToSource':
      return true;
    case 'Succeeded':
      return peer.complete || (host.pantala && peer.finishedPieces > 0);
    case 'Pending':
    case 'ReceivedNormal':
      // A Pantala host tells its children what it has: a part of it, or what it is about to fetch.
      return peer.granted || (host.pantala && (host.seed || peer.streaming || peer.finishedPieces > 0));
    case 'ReceivedEmpty':
    case 'Failed':
    case 'Leave':
      return false;
  }
}

function setMember<T>(set: Set<T>, item: T, member: boolean): void {
  if (member) set.add(item);
  else set.delete(item);
}
