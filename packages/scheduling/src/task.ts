import type { DigestBook } from './digest-book.ts';
import { IndexedSet } from './indexed-set.ts';
import type { Peer } from './peer.ts';

/** Bytes that are wanted of a task. */
export interface WantedRange {
  readonly start: number;
  readonly length: number;
}

/** What registrations say of a task. `origin` is whatever the server needs to trigger a seed; the core only keeps it. */
export interface TaskFacts {
  /** Undefined: not known yet. */
  readonly contentLength: number | undefined;
  readonly pieceLength: number | undefined;
  readonly digest: string | undefined;
  readonly origin?: unknown;
}

export type TaskState = 'Pending' | 'Running' | 'Succeeded' | 'Failed';

/** A seed that was asked to fetch a task. */
export interface SeedTrigger {
  readonly seedHostId: string;
  /** Whether the whole content was asked for. */
  whole: boolean;
  readonly ranges: WantedRange[];
  /** Requests without an end yet. */
  running: number;
}

export class Task {
  readonly id: string;
  state: TaskState = 'Pending';
  contentLength: number | undefined;
  pieceLength: number | undefined;
  digest: string | undefined;
  /** Of the latest registration, which has the freshest credentials. */
  origin: unknown;
  createdAt: number;
  updatedAt: number;
  readonly peers = new Map<string, Peer>();
  /** Peers that may be parents, all and by data centre. */
  readonly suppliers = new IndexedSet<Peer>();
  readonly suppliersByIdc = new Map<string, IndexedSet<Peer>>();
  /** Suppliers that need nobody: seeds, peers that fetch from the origin, whole copies. */
  readonly seeds = new Set<Peer>();
  readonly fetchers = new Set<Peer>();
  readonly copies = new IndexedSet<Peer>();
  /** In the order in which they are answered. */
  readonly waiting = new Set<Peer>();
  /** Peers told to fetch from the origin; never more than the limit. */
  readonly granted = new Set<Peer>();
  trigger: SeedTrigger | undefined;
  /** Seeds that failed for this task, until when they are left out. */
  readonly failedSeeds = new Map<string, number>();
  /** When the source was last heard of, and until when its silence is borne. */
  sourceDeadline = 0;
  book: DigestBook | undefined;
  readonly watchers = new Set<string>();
  /** Who reported wrong bytes of whom. */
  readonly badReports = new Map<string, Set<string>>();
  readonly blockedHosts = new Set<string>();
  /** Hosts whose claim of a mismatch of the whole was taken. */
  readonly mismatchReporters = new Set<string>();

  constructor(id: string, now: number) {
    this.id = id;
    this.createdAt = now;
    this.updatedAt = now;
  }

  get pieceCount(): number | undefined {
    if (this.contentLength === undefined || this.pieceLength === undefined) return undefined;
    return Math.ceil(this.contentLength / this.pieceLength);
  }

  /** Takes what is not known yet, and the newest way to the origin. */
  learn(facts: TaskFacts): void {
    this.contentLength ??= facts.contentLength;
    this.pieceLength ??= facts.pieceLength;
    this.digest ??= facts.digest;
    if (facts.origin !== undefined) this.origin = facts.origin;
  }

  /** Whether a digest of the whole content is known: its own id, or one that was named with it. */
  get selfCertifying(): boolean {
    return this.digest?.startsWith('sha256:') === true || this.digest?.startsWith('sha512:') === true;
  }

  /** Nobody has it and nobody asks about it. */
  get abandoned(): boolean {
    return this.peers.size === 0 && this.watchers.size === 0 && (this.trigger?.running ?? 0) === 0;
  }
}

/** Whether who holds `held` has all of `wanted`; undefined is the whole. */
export function covers(held: WantedRange | undefined, wanted: WantedRange | undefined): boolean {
  if (held === undefined) return true;
  if (wanted === undefined) return false;
  return held.start <= wanted.start && wanted.start + wanted.length <= held.start + held.length;
}
