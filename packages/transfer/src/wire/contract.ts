import type { BlockRun } from '@pantala/base';
import type { StoredTask } from '@pantala/store';

/** Where a parent serves pieces (the address that upstream's SyncPieces or Host announces). */
export interface ParentAddress {
  readonly host: string;
  readonly port: number;
}

/**
 * Bytes of a run of blocks as they arrive from a Pantala parent: whole blocks, in order, unchecked.
 * `data` belongs to the receiver until the promise it returns settles; reading from that parent pauses meanwhile.
 */
export type BlockReceiver = (run: BlockRun, data: Buffer) => Promise<void> | void;

export interface RangeRequest {
  readonly taskId: string;
  readonly pieceLength: number;
  readonly contentLength: number;
  /** Blocks of one piece. */
  readonly run: BlockRun;
  /** Ask for the digests of all of the piece's blocks first (they are checked against the piece's digest). */
  readonly wantDigests: boolean;
  /** A seed fetches from the origin what it lacks, instead of answering `not-found`. */
  readonly fetchMissing: boolean;
  /** Nobody waits for these very blocks: they are handed over in large parts, a little later (GATHER_TIME). */
  readonly gather: boolean;
  readonly onDigests?: (digests: Buffer) => void;
  readonly onBlocks: BlockReceiver;
  readonly signal: AbortSignal;
}

/** One kept connection to a Pantala parent; many requests at once, answered as their blocks become available. */
export interface ParentConnection extends AsyncDisposable {
  readonly address: ParentAddress;
  /** False once the connection broke; the owner opens a new one. */
  readonly usable: boolean;
  /**
   * Resolves when every block of the run was received.
   *
   * @throws `not-found` when the parent lacks a block, `unavailable` when the connection breaks or stays silent,
   *   `data-loss` for frames that break the protocol, `cancelled`
   */
  fetch(request: RangeRequest): Promise<void>;
}

/** What a piece server asks of its program. */
export interface PieceSource {
  /** A task that this node may serve; undefined when it is unknown. */
  find(taskId: string): StoredTask | undefined;
  /** Seeds only: begins to fetch the run from the origin. Resolves when it is held; rejects when it cannot be. */
  fetchMissing?(taskId: string, run: BlockRun, signal: AbortSignal): Promise<void>;
}
