import type { ByteRange } from '@pantala/base';
import type { ReadOptions } from '../contract.ts';

export interface FetchOptions extends ReadOptions {
  /** Names of sources that are not to be asked: what they gave was wrong. */
  readonly avoid: ReadonlySet<string>;
  /** Called as bytes arrive with all that there are of one source: a prefix of the range. */
  readonly progress: (received: Uint8Array, source: string) => void;
}

export interface Fetched {
  /** Exactly the range, unchecked. */
  readonly bytes: Uint8Array;
  /** The name of the source that gave them. */
  readonly source: string;
  /** Gives their memory back at once: a worker that has nothing to do any more collects no garbage. */
  readonly release?: () => void;
}

/** Gets stored bytes from whichever of its sources answers best. */
export interface BlobFetcher {
  readonly sourceNames: readonly string[];
  /** @throws as `BlobSource.read`; `unavailable` when every source is to be avoided */
  fetch(blobId: string, range: ByteRange, options: FetchOptions): Promise<Fetched>;
  /** The bytes of this source were wrong where another one's were right. */
  blame(source: string): void;
}
