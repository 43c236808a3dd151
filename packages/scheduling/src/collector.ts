import type { Authority } from './authority.ts';
import type { Cluster } from './cluster.ts';
import type { Membership } from './membership.ts';
import { peersOf } from './membership.ts';
import type { Peer } from './peer.ts';

/** Forgets hosts, peers and tasks whose time is over. */
export class Collector {
  readonly #cluster: Cluster;
  readonly #membership: Membership;
  readonly #authority: Authority;
  dueAt = 0;

  constructor(cluster: Cluster, membership: Membership, authority: Authority) {
    this.#cluster = cluster;
    this.#membership = membership;
    this.#authority = authority;
  }

  collect(): void {
    const cluster = this.#cluster;
    if (cluster.now < this.dueAt) return;
    this.dueAt = cluster.now + cluster.settings.gcIntervalMs;
    for (const host of cluster.hosts.values()) {
      if (host.connected) continue;
      const { announceIntervalMs } = host.facts;
      const ttl = announceIntervalMs > 0 ? 2 * announceIntervalMs : cluster.settings.hostTtlMs;
      if (cluster.now - Math.max(host.announcedAt, host.disconnectedAt) > ttl) {
        this.#membership.forget(host);
      } else if (host.pantala && cluster.now - host.disconnectedAt > cluster.settings.disconnectGraceMs) {
        for (const peer of peersOf(host)) if (!peer.streaming) cluster.removePeer(peer);
      }
    }
    for (const task of cluster.tasks.values()) {
      for (const peer of task.peers.values()) if (this.#isOver(peer)) cluster.removePeer(peer);
      if (!task.abandoned) continue;
      this.#authority.forget(task);
      cluster.woken.delete(task);
      cluster.tasks.delete(task.id);
    }
  }

  #isOver(peer: Peer): boolean {
    const { now, settings } = this.#cluster;
    if (peer.state === 'Failed' || peer.state === 'Leave') return true;
    const downloading = peer.state === 'Running' || peer.state === 'BackToSource';
    if (downloading && now - Math.max(peer.pieceAt, peer.updatedAt) > settings.pieceDownloadTimeoutMs) return true;
    // A connected Pantala host tells when it removes a copy.
    return !peer.host.connected && now - peer.updatedAt > settings.peerTtlMs;
  }
}
