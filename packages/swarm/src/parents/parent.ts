import type { BlockRun, PantalaError } from '@pantala/base';
import type { BlockReceiver } from '@pantala/transfer';
import type { Candidate } from '../schedulers/session.ts';

/** What a parent says of its holdings: blocks that are new, and how it deals them out. All empty: it is alive. */
export interface ParentNews {
  readonly held: readonly BlockRun[];
  readonly assigned: readonly BlockRun[];
  readonly deferred: readonly BlockRun[];
}

export interface ParentListener {
  news(news: ParentNews): void;
  /** Nothing more is to be expected of it. Called once, never after it was disposed. */
  gone(error: PantalaError): void;
}

export interface ParentFetch {
  /** Blocks of one piece; the whole piece where `wholePieces` is set. */
  readonly run: BlockRun;
  readonly wantDigests: boolean;
  /** Have a seed fetch from the origin what it lacks. */
  readonly fetchMissing: boolean;
  /** Nobody waits for these very blocks: they may come in large parts, a little later. */
  readonly gather: boolean;
  readonly onDigests: (digests: Buffer) => void;
  readonly onBlocks: BlockReceiver;
  readonly signal: AbortSignal;
}

/** One other peer's part in one task, as seen by its child. */
export interface Parent extends AsyncDisposable {
  readonly candidate: Candidate;
  /** It speaks only upstream's protocol. */
  readonly wholePieces: boolean;
  /** It is a seed that fetches on behalf of others. */
  readonly fetchesMissing: boolean;
  /**
   * @throws `not-found` when it lacks a block; `unavailable`, `deadline-exceeded` when it cannot be reached;
   *   `data-loss` for an answer that breaks the protocol; `cancelled`; what `onBlocks` throws
   */
  fetch(fetch: ParentFetch): Promise<void>;
}
