import type { ByteRange, Listeners, Logger, RateLimiter } from '@pantala/base';
import type { DecodeThreads } from '../decoding/decode-threads.ts';
import type { ChunkIndex } from './chunk-index.ts';
import type { DemandMeter } from './demand-meter.ts';
import type { BlobFetcher } from './fetcher.ts';
import type { CacheMetrics, FillCounters } from './metrics.ts';
import type { CompiledCacheOptions } from './options.ts';
import type { FillEvent } from './trace.ts';

/** What all blobs of a cache share. */
export interface CacheContext {
  readonly options: CompiledCacheOptions;
  readonly demand: DemandMeter;
  readonly decoding: DecodeThreads;
  readonly index: ChunkIndex;
  readonly fills: Listeners<FillEvent>;
  readonly metrics: CacheMetrics;
  readonly counters: FillCounters;
  readonly logger: Logger;
  /** Frees disk space; false when there is nothing to free. */
  makeRoom(bytes: number): Promise<boolean>;
}

/** What a reader asked for, and what became of it. */
export interface ReadEvent {
  readonly blobId: string;
  /** Of the decoded blob. */
  readonly range: ByteRange;
  /** Whether its chunks were there when it came. */
  readonly held: 'all' | 'some' | 'none';
  readonly milliseconds: number;
  readonly failed: boolean;
}

/** How a mount gets at what its blobs lack. */
export interface BlobAccess {
  readonly fetcher: BlobFetcher;
  /** Stored bytes that one request fetches along at most; 0: only what is asked for. Default 1 MiB. */
  readonly pieceLength?: number;
  /** Stored bytes a second of prefetches. Default: no limit. */
  readonly prefetchLimiter?: RateLimiter;
  /** Told of each read of the blob by demand, of every mount that shares it: the kernel does not say through which. */
  readonly onRead?: (event: ReadEvent) => void;
}
