import type { Peer } from './peer.ts';

/** What a host announces about itself. */
export interface HostFacts {
  readonly id: string;
  readonly seed: boolean;
  /** Data centre and place, `|` between the parts of a place, widest first; empty when unknown. */
  readonly idc: string;
  readonly location: string;
  /** Never a parent. */
  readonly disableShared: boolean;
  /** Milliseconds between announcements; 0: unknown. */
  readonly announceIntervalMs: number;
}

/** Weight of the newest measurement in a host's bandwidth. */
const BANDWIDTH_WEIGHT = 0.2;

export class Host {
  facts: HostFacts;
  announcedAt: number;
  /** Whether its Converse stream is open now. */
  connected = false;
  /** Whether it ever opened one: then it speaks pantala.v1. */
  pantala = false;
  disconnectedAt = 0;
  /** Children that its peers serve; never more than the limit. */
  uploads = 0;
  /** Bytes a second that children measured; 0: unknown. */
  bandwidth = 0;
  /** Not asked as a seed until then, because it could not be reached. */
  pausedUntil = 0;
  failures = 0;
  /** Tasks named since the connect, while its list of held tasks is not complete. */
  listing: Set<string> | undefined;
  readonly peersByTask = new Map<string, Peer[]>();
  readonly watched = new Set<string>();

  constructor(facts: HostFacts, now: number) {
    this.facts = facts;
    this.announcedAt = now;
  }

  get id(): string {
    return this.facts.id;
  }

  get seed(): boolean {
    return this.facts.seed;
  }

  /** A Pantala host without its stream may be gone; nobody new is sent there. */
  get reachable(): boolean {
    return !this.pantala || this.connected;
  }

  measure(bytes: number, costMs: number): void {
    if (bytes <= 0 || costMs <= 0) return;
    const sample = (bytes * 1000) / costMs;
    this.bandwidth = this.bandwidth === 0 ? sample : this.bandwidth + (sample - this.bandwidth) * BANDWIDTH_WEIGHT;
  }

  attach(peer: Peer): void {
    const peers = this.peersByTask.get(peer.task.id);
    if (peers === undefined) this.peersByTask.set(peer.task.id, [peer]);
    else peers.push(peer);
  }

  detach(peer: Peer): void {
    const peers = this.peersByTask.get(peer.task.id);
    if (peers === undefined) return;
    const rest = peers.filter((other) => other !== peer);
    if (rest.length === 0) this.peersByTask.delete(peer.task.id);
    else this.peersByTask.set(peer.task.id, rest);
  }
}
