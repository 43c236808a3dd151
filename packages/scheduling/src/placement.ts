import type { Cluster } from './cluster.ts';
import { PENDING_SEED_PREFIX } from './cluster.ts';
import type { Host } from './host.ts';
import { SEED_TRY_LIMIT, TRIGGERED_RANGE_LIMIT, WAKE_LIMIT, WAKE_MISS_LIMIT } from './options.ts';
import type { Peer } from './peer.ts';
import { healthy } from './seeds.ts';
import { chooseParents, isUsable } from './selection.ts';
import { covers, type Task, type WantedRange } from './task.ts';

/** How many more children a parent must have than a newcomer before it gives its place in a mesh to it. */
const MESH_IMBALANCE = 2;

/** How long a peer waits for the tick's next look after its first patience ran out. */
const ATTENTION_MS = 1_000;

/** Answers peers: with parents, with leave to fetch from the origin, or later. */
export class Placement {
  readonly #cluster: Cluster;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  /** Answers a peer now, or has it wait for an event. */
  request(peer: Peer): void {
    this.ensureSource(peer.task, peer);
    if (!this.#place(peer)) this.#cluster.startWaiting(peer);
  }

  /** Leave to fetch from the origin, when the task's limit allows it. */
  grant(peer: Peer, description: string): boolean {
    const { task } = peer;
    if (peer.disableBackToSource) return false;
    if (!task.granted.has(peer) && task.granted.size >= this.#cluster.settings.backToSourceCount) return false;
    task.granted.add(peer);
    this.#tellToFetch(peer, description);
    return true;
  }

  /** Seeds never wait: they take what others hold, and fetch the rest without a limit that counts them. */
  requestSeed(peer: Peer): void {
    if (peer.pantala && peer.range === undefined) {
      this.#joinMesh(peer);
      for (const parent of peer.parents) if (parent.complete) return;
    } else if (hasCopyElsewhere(peer)) {
      this.request(peer);
      return;
    }
    this.grantSeed(peer);
  }

  grantSeed(peer: Peer): void {
    this.#tellToFetch(peer, 'a seed fetches from the origin');
  }

  #tellToFetch(peer: Peer, description: string): void {
    const { task } = peer;
    if (!peer.pantala) this.#cluster.graph.dropParents(peer);
    peer.granted = true;
    this.#cluster.stopWaiting(peer);
    this.#cluster.sourceSign(task);
    this.#cluster.refreshSupply(peer);
    this.#cluster.decide({ type: 'needBackToSource', taskId: task.id, peerId: peer.id, description });
    this.#cluster.woken.add(task);
  }

  #place(peer: Peer): boolean {
    const cluster = this.#cluster;
    const sourced = cluster.hasSource(peer.task, peer.range);
    if (!sourced) {
      // Whoever was told to fetch has been silent for too long, or is gone.
      for (const silent of peer.task.granted) silent.granted = false;
      peer.task.granted.clear();
    }
    if (!sourced || (peer.pantala && reachesNoSource(peer, cluster.now))) {
      if (peer.disableBackToSource || cluster.settings.backToSourceCount === 0) return false;
      // Others may have parts of it.
      if (peer.pantala) this.#joinMesh(peer);
      return this.grant(peer, 'nobody within reach has the task or fetches it');
    }
    return peer.pantala ? this.#joinMesh(peer) : this.#joinTree(peer);
  }

  #joinTree(peer: Peer): boolean {
    const { graph, settings } = this.#cluster;
    graph.dropParents(peer);
    const parents = chooseParents(this.#cluster, peer, settings.candidateParentLimit);
    for (const parent of parents) graph.link(peer, parent);
    return this.#send(peer);
  }

  #joinMesh(peer: Peer): boolean {
    this.#fillMesh(peer);
    for (const parent of peer.parents) this.#offer(parent, peer);
    return this.#send(peer);
  }

  /** Drops parents that are of no use any more and fills the free places. */
  #fillMesh(peer: Peer): void {
    const { graph, settings } = this.#cluster;
    for (const parent of Array.from(peer.parents)) {
      if (!isUsable(this.#cluster, peer, parent)) graph.unlink(peer, parent);
    }
    const hosts = new Set([...peer.parents].map((parent) => parent.host));
    for (const parent of chooseParents(this.#cluster, peer, settings.meshParentLimit)) {
      if (peer.parents.size >= settings.meshParentLimit && !parent.host.seed) break;
      if (hosts.has(parent.host)) continue;
      if (peer.parents.size >= settings.meshParentLimit && !this.#giveUpOne(peer)) break;
      graph.link(peer, parent);
    }
  }

  /** A seed's place is made free by the parent with the most children. */
  #giveUpOne(peer: Peer): boolean {
    const busiest = busiestParent(peer);
    if (busiest === undefined) return false;
    this.#cluster.graph.unlink(peer, busiest);
    return true;
  }

  /** Edges of a mesh go both ways, so that who came first does not upload to everybody and get from few. */
  #offer(peer: Peer, newcomer: Peer): void {
    const { graph, settings } = this.#cluster;
    if (!peer.pantala || !peer.active || peer.granted || peer.host.seed || peer.waitingSince !== undefined) return;
    if (!isUsable(this.#cluster, peer, newcomer) || peer.parents.has(newcomer)) return;
    if ([...peer.parents].some((parent) => parent.host === newcomer.host)) return;
    if (peer.parents.size >= settings.meshParentLimit) {
      const busiest = busiestParent(peer);
      if (busiest === undefined || busiest.children.size <= newcomer.children.size + MESH_IMBALANCE) return;
      graph.unlink(peer, busiest);
    }
    graph.link(peer, newcomer);
    this.#cluster.markDirty(peer);
  }

  #send(peer: Peer): boolean {
    if (peer.parents.size === 0) return false;
    this.#cluster.stopWaiting(peer);
    this.#cluster.dirty.delete(peer);
    peer.stale = false;
    const parents = [...peer.parents]
      .sort((a, b) => Number(b.host.seed) - Number(a.host.seed))
      .map((parent) => ({ peerId: parent.id, hostId: parent.host.id }));
    this.#cluster.decide({ type: 'sendParents', taskId: peer.task.id, peerId: peer.id, parents });
    return true;
  }

  /** Has a seed fetch what the peer wants, unless somebody has it or fetches it already. */
  ensureSource(task: Task, peer: Peer): void {
    const cluster = this.#cluster;
    if (peer.host.seed || task.copies.size > 0) return;
    const seed = this.#seedAtWork(task) ?? this.#nextSeed(task, peer.range);
    if (seed === undefined || this.#isFetchedFor(task, seed, peer)) return;
    if (task.trigger?.seedHostId !== seed.id)
      task.trigger = { seedHostId: seed.id, whole: false, ranges: [], running: 0 };
    const { trigger } = task;
    const range = trigger.ranges.length >= TRIGGERED_RANGE_LIMIT ? undefined : peer.range;
    if (range === undefined) trigger.whole = true;
    else trigger.ranges.push(range);
    trigger.running++;
    task.sourceDeadline = Math.max(task.sourceDeadline, cluster.now + cluster.settings.patienceMs);
    const needBackToSource = !seed.pantala || range !== undefined || !isHeldElsewhere(task, seed);
    cluster.decide({ type: 'triggerSeed', taskId: task.id, seedHostId: seed.id, range, needBackToSource });
    this.#expectSeed(task, seed);
  }

  #seedAtWork(task: Task): Host | undefined {
    const triggered = task.trigger === undefined ? undefined : this.#cluster.hosts.get(task.trigger.seedHostId);
    if (triggered !== undefined && (task.trigger?.running ?? 0) > 0) return triggered;
    for (const peer of task.seeds) if (healthy(peer.host, this.#cluster.now)) return peer.host;
    return undefined;
  }

  #nextSeed(task: Task, wanted: WantedRange | undefined): Host | undefined {
    const { now } = this.#cluster;
    if (task.fetchers.size > 0 && this.#cluster.hasSource(task, wanted)) return undefined;
    let failed = 0;
    for (const until of task.failedSeeds.values()) if (until > now) failed++;
    return failed >= SEED_TRY_LIMIT ? undefined : this.#cluster.ring.pick(task, now);
  }

  #isFetchedFor(task: Task, seed: Host, peer: Peer): boolean {
    const downloads = seed.peersByTask.get(task.id) ?? [];
    const trigger = task.trigger?.seedHostId === seed.id ? task.trigger : undefined;
    const known = downloads.length > 0 || (trigger?.running ?? 0) > 0;
    if (!known) return false;
    // A Pantala seed fetches small ranges as they are asked of it.
    if (peer.range !== undefined && peer.pantala && seed.pantala) return true;
    if (downloads.some((download) => download.active && covers(download.range, peer.range))) return true;
    if (trigger === undefined) return false;
    return trigger.whole || (peer.range !== undefined && trigger.ranges.some((range) => covers(range, peer.range)));
  }

  /** A Pantala seed may be asked before it has registered. */
  #expectSeed(task: Task, seed: Host): void {
    if (!seed.pantala || seed.peersByTask.has(task.id)) return;
    const peer = this.#cluster.obtainPeer(PENDING_SEED_PREFIX + seed.id, task, seed);
    this.#cluster.refreshSupply(peer);
  }

  /** Answers those waiting for a task as far as they can be answered now. */
  wake(task: Task): void {
    this.#restoreSource(task);
    let misses = 0;
    let tries = 0;
    for (const peer of task.waiting.values().take(WAKE_LIMIT).toArray()) {
      if (misses >= WAKE_MISS_LIMIT) return;
      if (peer.waitingSince === undefined) continue;
      tries++;
      if (this.#place(peer)) continue;
      misses++;
      // The next wake begins with others.
      task.waiting.delete(peer);
      task.waiting.add(peer);
    }
    if (tries === WAKE_LIMIT) this.#cluster.woken.add(task);
  }

  /** A seed, else one of the peers, takes over from a source that is gone. */
  #restoreSource(task: Task): void {
    const cluster = this.#cluster;
    let heir: Peer | undefined = task.waiting.values().next().value;
    if (heir === undefined && !cluster.hasSource(task, undefined)) heir = furthestPeer(task);
    if (heir === undefined || cluster.hasSource(task, heir.range)) return;
    this.ensureSource(task, heir);
    if (cluster.hasSource(task, heir.range) || heir.waitingSince !== undefined) return;
    this.#place(heir);
  }

  /** The tick's part: peers that waited long, and meshes that changed. */
  attend(): void {
    const cluster = this.#cluster;
    const { settings, now } = cluster;
    let seen = 0;
    for (const peer of cluster.waiting) {
      if (peer.attentionAt > now || seen++ >= WAKE_LIMIT) break;
      this.#attendTo(peer);
    }
    if (now < cluster.flushAt) return;
    cluster.flushAt = Number.POSITIVE_INFINITY;
    for (const peer of cluster.dirty
      .values()
      .take(4 * WAKE_LIMIT)
      .toArray()) {
      cluster.dirty.delete(peer);
      if (peer.active && peer.waitingSince === undefined) this.#refresh(peer);
    }
    if (cluster.dirty.size > 0) cluster.flushAt = now + settings.meshFlushMs;
  }

  #attendTo(peer: Peer): void {
    const cluster = this.#cluster;
    const { settings, now } = cluster;
    this.ensureSource(peer.task, peer);
    if (this.#place(peer) || this.grant(peer, 'no parent was found in time')) return;
    if (now - (peer.waitingSince ?? now) >= settings.giveUpMs) {
      cluster.decide({
        type: 'failPeer',
        taskId: peer.task.id,
        peerId: peer.id,
        code: 'failed-precondition',
        message: `no parent for task ${peer.task.id} within ${settings.giveUpMs / 1000} s`,
      });
      peer.streaming = false;
      peer.step('fail');
      cluster.detach(peer);
      cluster.refreshSupply(peer);
      return;
    }
    peer.attentionAt = now + Math.min(ATTENTION_MS, settings.patienceMs);
    cluster.waiting.delete(peer);
    cluster.waiting.add(peer);
  }

  #refresh(peer: Peer): void {
    const before = new Set(peer.parents);
    this.#fillMesh(peer);
    if (peer.parents.size === 0) {
      if (!peer.granted) this.request(peer);
    } else if (peer.stale || before.symmetricDifference(peer.parents).size > 0) {
      this.#send(peer);
    }
  }
}

function hasCopyElsewhere(peer: Peer): boolean {
  for (const copy of peer.task.copies) if (copy.host !== peer.host) return true;
  return false;
}

/** Whether somebody else could give a seed at least a part. */
function isHeldElsewhere(task: Task, seed: Host): boolean {
  for (const peer of task.suppliers) if (peer.host !== seed && peer.pantala && peer.holdsSomething) return true;
  return false;
}

/** Of the parents that can be done without: no seeds and none that fetches from the origin. */
function busiestParent(peer: Peer): Peer | undefined {
  let busiest: Peer | undefined;
  for (const parent of peer.parents) {
    if (parent.host.seed || parent.granted) continue;
    if (busiest === undefined || parent.children.size > busiest.children.size) busiest = parent;
  }
  return busiest;
}

/** The running Pantala peer that lacks least: only such a peer can be told to fetch without having asked. */
function furthestPeer(task: Task): Peer | undefined {
  let furthest: Peer | undefined;
  for (const peer of task.peers.values()) {
    if (!peer.active || !peer.pantala || peer.host.seed || peer.disableBackToSource) continue;
    if (furthest === undefined || peer.finishedPieces > furthest.finishedPieces) furthest = peer;
  }
  return furthest;
}

/** Whether a peer has said of all who have the task or fetch it that they are of no use to it. */
function reachesNoSource(peer: Peer, now: number): boolean {
  const { task } = peer;
  let sources = 0;
  for (const group of [task.seeds, task.fetchers, task.copies]) {
    for (const { host } of group) {
      if (host === peer.host) continue;
      if (!peer.blocks(host.id, now)) return false;
      sources++;
    }
  }
  const { trigger } = task;
  if (trigger !== undefined && trigger.running > 0 && !peer.blocks(trigger.seedHostId, now)) return false;
  return sources > 0;
}
