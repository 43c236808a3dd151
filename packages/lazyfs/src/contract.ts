import type { ByteRange } from '@pantala/base';
import type { FilledBlocks } from './filled-blocks.ts';

/** What a read is for: a reader waits for `demand`; `prefetch` gives way to it everywhere. */
export type Urgency = 'demand' | 'prefetch';

export interface ReadOptions {
  readonly urgency: Urgency;
  readonly signal: AbortSignal;
}

export interface SourceReadOptions extends ReadOptions {
  /**
   * Called as bytes arrive, with all that there are so far: a prefix of the range, and the same memory as the result.
   * Whoever cannot use the beginning before the end leaves it out.
   */
  readonly progress?: (received: Uint8Array) => void;
}

/** Where stored (compressed) bytes of blobs come from: the peer on this machine, a mirror, the registry, a folder. */
export interface BlobSource {
  /** For traces and metrics: `peer`, `mirror <host>`, `registry <host>`, `localfs`. */
  readonly name: string;
  /**
   * Exactly the bytes of `range` of the stored blob, in memory of their own. They are not checked: whoever decodes them
   * does that.
   *
   * @param blobId 64 hex digits
   * @throws `not-found`, `unauthenticated`, `permission-denied`, `unavailable`, `origin`, the reason of the signal
   */
  read(blobId: string, range: ByteRange, options: SourceReadOptions): Promise<Uint8Array>;
  /**
   * Does what the first read of a blob would else wait for. Absent where that is nothing.
   *
   * @throws as `read`
   */
  prepare?(blobId: string, signal: AbortSignal): Promise<void>;
}

/** A blob of a mounted image: a sparse file of decoded chunks that fills as it is read. */
export interface LazyBlob {
  /** 64 hex digits. */
  readonly id: string;
  /** Bytes of the decoded blob, a multiple of 4096. */
  readonly size: number;
  /**
   * The sparse file of decoded chunks, which the kernel has as `device=`. What writes it or reads it back does so in this
   * process, whose events the fanotify driver lets through: a worker that takes over opens the file when its mark has
   * long been there.
   */
  readonly path: string;
  /** What of it is there, for whoever answers reads on another thread. Revoked when the blob is closed. */
  readonly blocks: FilledBlocks;
  readonly complete: boolean;
  /** Bytes of the chunks that are there, and of all chunks. */
  readonly filled: { readonly bytes: number; readonly of: number };
  /** Resolves when the last chunk is in the file; never rejects. */
  readonly completed: Promise<void>;
  /**
   * Resolves when every chunk that touches `range` of the decoded blob is in the cache file, each checked against its
   * digest before it was written. Callers that want the same chunk share one fetch.
   *
   * @throws `data-loss` when no source has the right bytes, `unavailable`, `disk-full`, `deadline-exceeded`, the reason
   *   of the signal
   */
  ensure(range: ByteRange, options: ReadOptions): Promise<void>;
  /** Counts a read of what was there, which was answered without `ensure`. */
  countHit(range: ByteRange): void;
  /** Where the first chunk at or after `offset` that is not there begins; undefined when there is none. */
  nextMissing(offset: number): number | undefined;
}
