import type { Counter, Histogram, Metrics } from '@pantala/base';

export interface CacheMetrics {
  /** Reads of the decoded blob, by what was there: `all`, `some`, `none`. */
  readonly reads: Counter;
  /** Bytes of decoded chunks that were written, by where they came from: `source`, `blob`, `cache`. */
  readonly filled: Counter;
  /** Groups of chunks whose bytes did not match their digests, by source. */
  readonly wrong: Counter;
  /** Reads that ended with an error, by its code. */
  readonly failures: Counter;
  /** Seconds that a reader waited. */
  readonly wait: Histogram;
  readonly evicted: Counter;
}

export function cacheMetrics(metrics: Metrics, usage: () => { blobs: number; bytes: number }): CacheMetrics {
  metrics.gauge('pantala_lazyfs_cache_blobs', { help: 'Blobs in the cache', collect: () => usage().blobs });
  metrics.gauge('pantala_lazyfs_cache_bytes', {
    help: 'Bytes that the cache takes on disk, as of the last look',
    collect: () => usage().bytes,
  });
  return {
    reads: metrics.counter('pantala_lazyfs_reads_total', {
      help: 'Ranges that readers asked for, by whether their chunks were there (all, some, none)',
      labels: ['held'],
    }),
    filled: metrics.counter('pantala_lazyfs_filled_bytes_total', {
      help: 'Bytes of decoded chunks by where they came from (source, blob, cache)',
      labels: ['from'],
    }),
    wrong: metrics.counter('pantala_lazyfs_wrong_bytes_total', {
      help: 'Groups of chunks whose bytes did not match their digests, by source',
      labels: ['source'],
    }),
    failures: metrics.counter('pantala_lazyfs_read_failures_total', {
      help: 'Ranges that readers got an error for, by code',
      labels: ['code'],
    }),
    wait: metrics.histogram('pantala_lazyfs_read_wait_seconds', {
      help: 'How long readers waited for ranges that were not there',
      buckets: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30],
    }),
    evicted: metrics.counter('pantala_lazyfs_evicted_blobs_total', { help: 'Blobs evicted from the cache' }),
  };
}

/** What nydusd's API tells of a blob cache, counted since the start. */
export interface FillCounters {
  total: number;
  wholeHits: number;
  partialHits: number;
  prefetchRequests: number;
  prefetchBytes: number;
  prefetchMilliseconds: number;
  /** Prefetches under way. */
  prefetchLanes: number;
  /** When one began first, and when one ended last: milliseconds since 1970, 0 for never. */
  firstPrefetchAt: number;
  lastPrefetchAt: number;
}

export function newFillCounters(): FillCounters {
  return {
    total: 0,
    wholeHits: 0,
    partialHits: 0,
    prefetchRequests: 0,
    prefetchBytes: 0,
    prefetchMilliseconds: 0,
    prefetchLanes: 0,
    firstPrefetchAt: 0,
    lastPrefetchAt: 0,
  };
}
