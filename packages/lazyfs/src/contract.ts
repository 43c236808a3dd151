import type { ByteRange } from '@pantala/base';

/** What a read is for: a reader waits for `demand`; `prefetch` gives way to it everywhere. */
export type Urgency = 'demand' | 'prefetch';

export interface ReadOptions {
  readonly urgency: Urgency;
  readonly signal: AbortSignal;
}

/** Where stored (compressed) bytes of blobs come from: the peer on this machine, a mirror, the registry, a folder. */
export interface BlobSource {
  /** For traces and metrics: `peer`, `mirror <host>`, `registry <host>`, `localfs`. */
  readonly name: string;
  /**
   * Exactly the bytes of `range` of the stored blob. They are not checked: whoever decodes them does that.
   *
   * @param blobId 64 hex digits
   * @throws `not-found`, `unauthenticated`, `permission-denied`, `unavailable`, `origin`, the reason of the signal
   */
  read(blobId: string, range: ByteRange, options: ReadOptions): Promise<Uint8Array>;
}

/** A blob of a mounted image: a sparse file of decoded chunks that fills as it is read. */
export interface LazyBlob {
  /** 64 hex digits. */
  readonly id: string;
  /** Bytes of the decoded blob, a multiple of 4096. */
  readonly size: number;
  readonly complete: boolean;
  /**
   * Resolves when every chunk that touches `range` of the decoded blob is in the cache file, each checked against its
   * digest before it was written. Callers that want the same chunk share one fetch.
   *
   * @throws `data-loss` when no source has the right bytes, `unavailable`, `disk-full`, the reason of the signal
   */
  ensure(range: ByteRange, options: ReadOptions): Promise<void>;
}
