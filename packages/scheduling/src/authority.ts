import { BLOCK_LENGTH, Geometry } from '@pantala/base';
import type { Cluster } from './cluster.ts';
import { DigestBook, type DigestItems, type DigestReport, type GiverRank } from './digest-book.ts';
import type { HeldTask } from './events.ts';
import type { Host } from './host.ts';
import { peersOf } from './membership.ts';
import { BAD_PARENT_REPORTERS, MAX_PIECES, WATCHER_LIMIT } from './options.ts';
import type { Peer } from './peer.ts';
import type { Task } from './task.ts';

/** Which digests are believed, who hears of them, and who is not to be believed any more. */
export class Authority {
  readonly #cluster: Cluster;
  /** Tasks that have digests, least recently used first, with the bytes that they were counted with. */
  readonly #books = new Map<Task, number>();
  digestBytes = 0;

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  reported(hostId: string, taskId: string, report: DigestReport): void {
    const host = this.#cluster.hosts.get(hostId);
    if (host === undefined) return;
    const task = this.#cluster.obtainTask(taskId);
    task.updatedAt = this.#cluster.now;
    const fetches = (host.peersByTask.get(taskId) ?? []).some((peer) => peer.granted || peer.state === 'BackToSource');
    if (host.seed || fetches) this.#cluster.sourceSign(task);
    this.#take(host, task, report, host.seed ? 'seed' : 'fetch');
  }

  /** What a host says that it holds, after a connect or because it changed. */
  held(hostId: string, tasks: readonly HeldTask[], completeList: boolean): void {
    const cluster = this.#cluster;
    const host = cluster.hosts.get(hostId);
    if (host === undefined || !host.connected) return;
    for (const held of tasks) {
      host.listing?.add(held.taskId);
      if (held.blockCount === 0) this.dropCopies(host, held.taskId);
      else this.#keep(host, held);
    }
    if (!completeList || host.listing === undefined) return;
    const { listing } = host;
    host.listing = undefined;
    for (const peer of peersOf(host)) {
      if (!peer.streaming && !listing.has(peer.task.id) && (peer.task.trigger?.running ?? 0) === 0)
        cluster.removePeer(peer);
    }
  }

  #keep(host: Host, held: HeldTask): void {
    const cluster = this.#cluster;
    const task = cluster.obtainTask(held.taskId);
    task.learn(held.facts);
    task.updatedAt = cluster.now;
    const complete = isComplete(held);
    const downloads = host.peersByTask.get(task.id) ?? [];
    const running = downloads.find((peer) => peer.streaming);
    const peer =
      running ??
      downloads.find((other) => other.id === held.peerId) ??
      downloads[0] ??
      cluster.obtainPeer(held.peerId, task, host);
    peer.updatedAt = cluster.now;
    peer.finishedPieces = Math.max(peer.finishedPieces, complete ? (task.pieceCount ?? 1) : 1);
    if (!peer.streaming) {
      peer.restart();
      if (complete) {
        peer.state = 'Succeeded';
        peer.complete = true;
        task.state = 'Succeeded';
      } else {
        peer.complete = false;
      }
    }
    cluster.refreshSupply(peer);
    cluster.woken.add(task);
    if (held.report === undefined || held.report.pieces.length === 0) return;
    // A whole copy was checked against the digest of the whole: its word counts like a fetch of its own.
    const rank: GiverRank = host.seed ? 'seed' : complete && task.selfCertifying ? 'fetch' : 'hearsay';
    this.#take(host, task, held.report, rank);
  }

  /** The host has no copy any more; what it is downloading now goes on. */
  dropCopies(host: Host, taskId: string): void {
    for (const peer of host.peersByTask.get(taskId) ?? []) if (!peer.streaming) this.#cluster.removePeer(peer);
  }

  #take(host: Host, task: Task, report: DigestReport, rank: GiverRank): void {
    if (task.blockedHosts.has(host.id)) return;
    if (!isPlausible(report)) return;
    task.contentLength ??= report.contentLength;
    task.pieceLength ??= report.pieceLength;
    if (task.book !== undefined && !task.book.fits(report)) {
      // Only a seed's word on the lengths weighs more than what is there.
      if (rank !== 'seed' || task.book.confirmed) return;
      for (const giver of task.book.void()) this.block(task, giver);
      this.#tellVoid(task);
      task.book = undefined;
      task.contentLength = report.contentLength;
      task.pieceLength = report.pieceLength;
    }
    const book = task.book ?? new DigestBook(task.id, report.contentLength, report.pieceLength);
    task.book = book;
    const outcome = book.report(host.id, rank, report);
    this.#account(task);
    for (const liar of outcome.liars) this.block(task, liar);
    if (outcome.rebuilt) {
      this.#tellVoid(task);
      this.#tellEverything(task, [...task.watchers]);
    } else {
      this.#tell(task, outcome.confirmed, true);
      this.#tell(task, outcome.unconfirmed, false);
    }
  }

  #tell(task: Task, items: DigestItems, confirmed: boolean): void {
    if (task.watchers.size === 0 || task.book === undefined) return;
    const hostIds = [...task.watchers];
    for (const news of task.book.split(items, confirmed)) this.#cluster.decide({ type: 'digestNews', hostIds, news });
  }

  #tellEverything(task: Task, hostIds: readonly string[]): void {
    if (hostIds.length === 0 || task.book === undefined) return;
    for (const news of task.book.news()) this.#cluster.decide({ type: 'digestNews', hostIds, news });
  }

  #tellVoid(task: Task): void {
    if (task.watchers.size === 0) return;
    this.#cluster.decide({ type: 'digestsVoid', hostIds: [...task.watchers], taskId: task.id });
  }

  watched(hostId: string, taskId: string): void {
    const host = this.#cluster.hosts.get(hostId);
    if (host === undefined || host.watched.size >= this.#cluster.settings.maxTasks) return;
    const task = this.#cluster.obtainTask(taskId);
    if (task.watchers.size >= WATCHER_LIMIT) return;
    task.watchers.add(hostId);
    host.watched.add(taskId);
    this.#touch(task);
    this.#tellEverything(task, [hostId]);
  }

  unwatched(hostId: string, taskId: string): void {
    this.#cluster.tasks.get(taskId)?.watchers.delete(hostId);
    this.#cluster.hosts.get(hostId)?.watched.delete(taskId);
  }

  /** Wrong bytes: never again for this child, and for nobody once others say the same. A seed is only the child's affair. */
  badParent(peer: Peer, parentId: string): void {
    const { task } = peer;
    const parent = this.#cluster.parent(task, parentId);
    if (parent === undefined || parent.host === peer.host) return;
    peer.block(parent.host.id, Number.POSITIVE_INFINITY);
    this.#cluster.graph.unlink(peer, parent);
    this.#cluster.markDirty(peer);
    if (parent.host.seed) return;
    const reporters = task.badReports.get(parent.host.id) ?? new Set();
    reporters.add(peer.host.id);
    task.badReports.set(parent.host.id, reporters);
    if (reporters.size >= BAD_PARENT_REPORTERS) this.block(task, parent.host.id);
  }

  /** Each host's word on this counts once for a task, so that a liar cannot keep a task void. */
  wholeMismatch(hostId: string, taskId: string): void {
    const task = this.#cluster.tasks.get(taskId);
    if (task === undefined || !this.#cluster.hosts.has(hostId) || task.mismatchReporters.has(hostId)) return;
    task.mismatchReporters.add(hostId);
    if (task.book === undefined) return;
    for (const giver of task.book.void()) this.block(task, giver);
    this.#account(task);
    this.#tellVoid(task);
    this.#tellEverything(task, [...task.watchers]);
  }

  /** Nobody is sent to the host for this task any more. */
  block(task: Task, hostId: string): void {
    const cluster = this.#cluster;
    if (task.blockedHosts.has(hostId)) return;
    task.blockedHosts.add(hostId);
    for (const peer of cluster.hosts.get(hostId)?.peersByTask.get(task.id) ?? []) {
      task.granted.delete(peer);
      peer.granted = false;
      cluster.refreshSupply(peer);
      for (const child of cluster.graph.dropChildren(peer)) cluster.markDirty(child);
    }
    if (task.trigger?.seedHostId === hostId) task.trigger = undefined;
    cluster.woken.add(task);
  }

  forget(task: Task): void {
    this.digestBytes -= this.#books.get(task) ?? 0;
    this.#books.delete(task);
    task.book = undefined;
  }

  #touch(task: Task): void {
    const bytes = this.#books.get(task);
    if (bytes === undefined) return;
    this.#books.delete(task);
    this.#books.set(task, bytes);
  }

  #account(task: Task): void {
    const before = this.#books.get(task) ?? 0;
    const after = task.book?.bytes ?? 0;
    this.digestBytes += after - before;
    this.#books.delete(task);
    if (task.book !== undefined) this.#books.set(task, after);
    for (const oldest of this.#books.keys()) {
      if (this.digestBytes <= this.#cluster.settings.maxDigestBytes || oldest === task) return;
      this.forget(oldest);
    }
  }
}

function isComplete({ facts, blockCount }: HeldTask): boolean {
  const { contentLength = 0, pieceLength = 0 } = facts;
  if (!isPlausible({ contentLength, pieceLength })) return false;
  return blockCount >= new Geometry(contentLength, pieceLength).blockCount;
}

function isPlausible({ contentLength, pieceLength }: Pick<DigestReport, 'contentLength' | 'pieceLength'>): boolean {
  if (!Number.isSafeInteger(contentLength) || !Number.isSafeInteger(pieceLength)) return false;
  return contentLength > 0 && pieceLength >= BLOCK_LENGTH && contentLength / pieceLength <= MAX_PIECES;
}
