import { PantalaError } from '@pantala/base';
import type { Cluster } from './cluster.ts';
import type { Registration, SchedulerEvent } from './events.ts';
import type { Host } from './host.ts';
import type { Peer } from './peer.ts';
import type { Placement } from './placement.ts';
import type { Task } from './task.ts';

type PieceFinished = Extract<SchedulerEvent, { type: 'pieceFinished' }>;

/** Events of peers' downloads: upstream's AnnouncePeer sequences. */
export class Downloads {
  readonly #cluster: Cluster;
  readonly #placement: Placement;

  constructor(cluster: Cluster, placement: Placement) {
    this.#cluster = cluster;
    this.#placement = placement;
  }

  register(event: Registration): void {
    const { taskId, peerId } = event;
    try {
      const host = this.#cluster.hosts.get(event.hostId);
      if (host === undefined) throw new PantalaError('not-found', `host ${event.hostId} not found; announce it first`);
      const task = this.#cluster.obtainTask(taskId);
      task.learn(event.facts);
      task.updatedAt = this.#cluster.now;
      this.#answer(this.#obtain(event, task, host), event);
    } catch (error) {
      const { code, message } = PantalaError.from(error);
      this.#cluster.decide({ type: 'failPeer', taskId, peerId, code, message });
    }
  }

  #obtain(event: Registration, task: Task, host: Host): Peer {
    const peer = this.#cluster.obtainPeer(event.peerId, task, host);
    // A Pantala host has one copy, whatever it was called before.
    if (host.pantala) {
      for (const earlier of host.peersByTask.get(task.id) ?? []) {
        if (earlier !== peer && !earlier.streaming) this.#adopt(earlier, peer);
      }
    }
    const running = peer.streaming && (peer.state === 'Running' || peer.state === 'BackToSource');
    if (!running) peer.restart();
    peer.streaming = true;
    peer.complete = false;
    peer.range = event.range;
    peer.disableBackToSource = event.disableBackToSource;
    this.#touch(peer);
    return peer;
  }

  /** Takes the children of the same host's earlier copy, or of the seed that was expected there. */
  #adopt(earlier: Peer, peer: Peer): void {
    const { graph } = this.#cluster;
    const children = [...earlier.children];
    for (const child of children) graph.unlink(child, earlier);
    for (const child of children) if (graph.hasSlot(peer.host)) graph.link(child, peer);
    peer.finishedPieces = Math.max(peer.finishedPieces, earlier.finishedPieces);
    this.#cluster.removePeer(earlier);
  }

  #answer(peer: Peer, event: Registration): void {
    const { task, host } = peer;
    const cluster = this.#cluster;
    if (task.state !== 'Succeeded') task.state = 'Running';
    if (event.metadataOnly) {
      peer.step('registerNormal');
      cluster.decide({ type: 'metadataOnly', taskId: task.id, peerId: peer.id });
      return;
    }
    if (task.contentLength === 0) {
      peer.step('registerEmpty');
      cluster.decide({ type: 'emptyTask', taskId: task.id, peerId: peer.id });
      return;
    }
    peer.step('registerNormal');
    cluster.refreshSupply(peer);
    if (host.seed) {
      if (event.needBackToSource) this.#placement.grantSeed(peer);
      else this.#placement.requestSeed(peer);
      return;
    }
    if (event.needBackToSource && this.#placement.grant(peer, 'the peer asked for it')) return;
    this.#placement.request(peer);
  }

  started(peer: Peer): void {
    if (!peer.step('download')) return;
    this.#touch(peer);
    this.#cluster.refreshSupply(peer);
    this.#cluster.woken.add(peer.task);
  }

  backToSourceStarted(peer: Peer): void {
    if (!peer.step('downloadBackToSource')) return;
    const cluster = this.#cluster;
    this.#touch(peer);
    cluster.stopWaiting(peer);
    if (!peer.pantala) cluster.graph.dropParents(peer);
    cluster.sourceSign(peer.task);
    cluster.refreshSupply(peer);
    cluster.woken.add(peer.task);
  }

  pieceFinished(peer: Peer, event: PieceFinished): void {
    const cluster = this.#cluster;
    const { task } = peer;
    peer.finishedPieces = Math.min(peer.finishedPieces + 1, task.pieceCount ?? Number.MAX_SAFE_INTEGER);
    peer.pieceAt = cluster.now;
    this.#touch(peer);
    if (event.parentId !== undefined) {
      const parent = cluster.parent(task, event.parentId);
      if (parent !== undefined && parent !== peer) {
        parent.host.measure(event.length, event.costMs);
        parent.recordCost(event.costMs);
        parent.updatedAt = cluster.now;
      }
    }
    if (peer.host.seed || peer.granted || peer.state === 'BackToSource') cluster.sourceSign(task);
    if (peer.finishedPieces === 1) {
      cluster.refreshSupply(peer);
      cluster.woken.add(task);
    }
  }

  pieceFailed(peer: Peer, parentId: string): void {
    this.#touch(peer);
    this.#refuse(peer, parentId);
    this.#cluster.markDirty(peer);
  }

  rescheduled(peer: Peer, badParentIds: readonly string[]): void {
    if (!peer.active) return;
    this.#touch(peer);
    for (const parentId of badParentIds) this.#refuse(peer, parentId);
    if (peer.host.seed) this.#placement.requestSeed(peer);
    else this.#placement.request(peer);
  }

  #refuse(peer: Peer, parentId: string): void {
    const parent = this.#cluster.parent(peer.task, parentId);
    if (parent === undefined || parent.host === peer.host) return;
    const until = peer.pantala ? this.#cluster.now + this.#cluster.settings.blockMs : Number.POSITIVE_INFINITY;
    peer.block(parent.host.id, until);
    this.#cluster.graph.unlink(peer, parent);
  }

  finished(peer: Peer): void {
    const cluster = this.#cluster;
    const { task } = peer;
    this.#touch(peer);
    cluster.decide({ type: 'closeStream', taskId: task.id, peerId: peer.id });
    peer.streaming = false;
    if (!peer.step('succeed')) return;
    peer.complete = peer.range === undefined;
    if (peer.complete) task.state = 'Succeeded';
    this.#stopDownloading(peer);
    cluster.refreshSupply(peer);
    cluster.woken.add(task);
  }

  failed(peer: Peer): void {
    const cluster = this.#cluster;
    const { task } = peer;
    cluster.decide({ type: 'closeStream', taskId: task.id, peerId: peer.id });
    this.#fail(peer);
    if (task.copies.size === 0 && task.suppliers.size === 0 && task.waiting.size === 0) task.state = 'Failed';
  }

  /** The stream broke, or the peer had enough of it. What a Pantala host holds it still offers. */
  streamClosed(peer: Peer): void {
    const cluster = this.#cluster;
    if (!peer.streaming) return;
    if (peer.host.connected && peer.finishedPieces > 0 && peer.state !== 'Failed') {
      peer.streaming = false;
      this.#stopDownloading(peer);
      peer.restart();
      cluster.refreshSupply(peer);
      cluster.woken.add(peer.task);
      return;
    }
    this.#fail(peer);
  }

  #fail(peer: Peer): void {
    const cluster = this.#cluster;
    peer.streaming = false;
    peer.step('fail');
    peer.complete = false;
    cluster.detach(peer);
    cluster.refreshSupply(peer);
    cluster.woken.add(peer.task);
  }

  #stopDownloading(peer: Peer): void {
    this.#cluster.stopWaiting(peer);
    peer.granted = false;
    peer.task.granted.delete(peer);
    this.#cluster.dirty.delete(peer);
    this.#cluster.graph.dropParents(peer);
  }

  #touch(peer: Peer): void {
    peer.updatedAt = this.#cluster.now;
    peer.task.updatedAt = this.#cluster.now;
  }
}
