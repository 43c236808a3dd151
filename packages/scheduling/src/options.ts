/** What may be set; everything has a default. Times are milliseconds. */
export type SchedulingOptions = Partial<SchedulingSettings>;

/** Times are milliseconds of the clock that `now` of each event comes from. */
export interface SchedulingSettings {
  /** Parents that a Dragonfly peer is offered at once. */
  readonly candidateParentLimit: number;
  /** Parents of a Pantala peer: a mesh of this degree spreads blocks well at any number of peers. */
  readonly meshParentLimit: number;
  /** Peers that are looked at for one choice of parents; half of them from the child's own data centre. */
  readonly filterParentLimit: number;
  /** Children that a normal host serves at once ("load limit"). */
  readonly uploadLimit: number;
  readonly seedUploadLimit: number;
  /**
   * Peers that may fetch a task from its origin at once, beside seeds. Upstream's 200 lets a whole cluster run to the
   * origin; one is enough, because the others get each block from it.
   */
  readonly backToSourceCount: number;
  /** A peer without parents waits this long for a sign of a triggered seed before one peer fetches by itself. */
  readonly patienceMs: number;
  /** A source that was heard of once and is then silent for longer counts as dead. */
  readonly sourcePatienceMs: number;
  /** A peer for which nothing was found in this time is told so. */
  readonly giveUpMs: number;
  /** A parent that failed is not offered to the same child again for this long. */
  readonly blockMs: number;
  /** Changes of a mesh are gathered for this long before they are sent. */
  readonly meshFlushMs: number;
  /** First pause of a seed that could not be reached; doubles with each failure. */
  readonly seedPauseMs: number;
  readonly maxSeedPauseMs: number;
  /** A Pantala host whose stream broke keeps its copies this long, so that a reconnect costs nothing. */
  readonly disconnectGraceMs: number;
  readonly gcIntervalMs: number;
  readonly pieceDownloadTimeoutMs: number;
  readonly peerTtlMs: number;
  readonly hostTtlMs: number;
  readonly maxHosts: number;
  readonly maxTasks: number;
  readonly maxPeers: number;
  readonly maxPeersPerTask: number;
  readonly maxDigestBytes: number;
}

export const SCHEDULING_DEFAULTS: SchedulingSettings = {
  candidateParentLimit: 3,
  meshParentLimit: 8,
  filterParentLimit: 15,
  uploadLimit: 200,
  seedUploadLimit: 2000,
  backToSourceCount: 1,
  patienceMs: 2_000,
  sourcePatienceMs: 10_000,
  giveUpMs: 30_000,
  blockMs: 60_000,
  meshFlushMs: 25,
  seedPauseMs: 1_000,
  maxSeedPauseMs: 60_000,
  disconnectGraceMs: 10_000,
  gcIntervalMs: 10_000,
  pieceDownloadTimeoutMs: 30 * 60_000,
  peerTtlMs: 24 * 3_600_000,
  hostTtlMs: 3_600_000,
  maxHosts: 100_000,
  maxTasks: 100_000,
  maxPeers: 500_000,
  maxPeersPerTask: 20_000,
  maxDigestBytes: 48 * 1024 * 1024,
};

export function compileSchedulingOptions(options: SchedulingOptions = {}): SchedulingSettings {
  return { ...SCHEDULING_DEFAULTS, ...options };
}

/** Seeds in one set of parents: more would leave no room for the mesh. */
export const SEED_PARENT_LIMIT = 2;

/** Seeds that are triggered for a task before a peer fetches it: an origin that refuses two refuses the third. */
export const SEED_TRY_LIMIT = 2;

/** Distinct hosts whose reports of wrong bytes block a normal host for the whole task: one may lie. */
export const BAD_PARENT_REPORTERS = 2;

/** Peers of one task that one event may wake; the rest follow at the next tick, so that no event costs much. */
export const WAKE_LIMIT = 64;

/** A wake ends after as many peers in a row for which nothing was found. */
export const WAKE_MISS_LIMIT = 8;

/** Rounds of such wakes in one event. */
export const WAKE_ROUNDS = 3;

/** Peers that a search for cycles visits before it gives up and refuses the edge. */
export const CYCLE_SEARCH_LIMIT = 2_000;

/** Hosts that one peer or task remembers as bad; the oldest is forgotten. */
export const BLOCKED_HOST_LIMIT = 256;

/** Ranges of a task for which its seed was triggered; more mean that the whole is wanted. */
export const TRIGGERED_RANGE_LIMIT = 16;

/** Hosts that watch one task's digests. */
export const WATCHER_LIMIT = 20_000;

/** Disagreeing digests that are remembered of one task until a third fetch decides. */
export const RIVAL_LIMIT = 4_096;

/** Pieces of a task: 4 TiB in pieces of 64 MiB. */
export const MAX_PIECES = 65_536;

/** Bytes of digests in one message of news. */
export const NEWS_BYTES = 256 * 1024;
