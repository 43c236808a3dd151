import type { ErrorCode, Metrics } from '@pantala/base';

/** Upper bounds of the size buckets of nydusd's counters, bytes; the last one has none. */
const SIZE_BOUNDS = [1, 4, 16, 64, 128, 512, 1024].map((kib) => kib * 1024);
/** Upper bounds of the latency buckets of its back ends, milliseconds; the last one has none. */
const LATENCY_BOUNDS = [1, 20, 50, 100, 500, 1000, 2000];
const BUCKETS = 8;

/** What nydusd's API tells of a back end, counted since the start. */
export interface BackendCounters {
  reads: number;
  errors: number;
  bytes: number;
  milliseconds: number;
  readonly byLatency: number[];
  readonly bySize: number[];
  /** Milliseconds and reads of each size bucket. */
  readonly latencyBySize: number[][];
}

/** Counts what sources do, for Prometheus and for nydusd's API. */
export class SourceMetrics {
  readonly counters: BackendCounters = {
    reads: 0,
    errors: 0,
    bytes: 0,
    milliseconds: 0,
    byLatency: zeros(),
    bySize: zeros(),
    latencyBySize: Array.from({ length: BUCKETS }, zeros),
  };
  readonly #reads;
  readonly #bytes;
  readonly #seconds;

  constructor(metrics: Metrics) {
    this.#reads = metrics.counter('pantala_lazyfs_source_reads_total', {
      help: 'Ranges that sources were asked for, by source and result (ok, or the code of the error)',
      labels: ['source', 'result'],
    });
    this.#bytes = metrics.counter('pantala_lazyfs_source_bytes_total', {
      help: 'Stored bytes that sources gave',
      labels: ['source'],
    });
    this.#seconds = metrics.histogram('pantala_lazyfs_source_seconds', {
      help: 'How long sources took for a range',
      labels: ['source'],
      buckets: [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10],
    });
  }

  read(source: string, bytes: number, milliseconds: number): void {
    this.#reads.add(1, { source, result: 'ok' });
    this.#bytes.add(bytes, { source });
    this.#seconds.observe(milliseconds / 1000, { source });
    const { counters } = this;
    const size = bucketOf(bytes, SIZE_BOUNDS);
    const latency = bucketOf(milliseconds, LATENCY_BOUNDS);
    counters.reads++;
    counters.bytes += bytes;
    counters.milliseconds += milliseconds;
    increase(counters.byLatency, latency);
    increase(counters.bySize, size);
    increase(counters.latencyBySize[size] as number[], latency);
  }

  failed(source: string, code: ErrorCode): void {
    this.#reads.add(1, { source, result: code });
    this.counters.errors++;
  }
}

function zeros(): number[] {
  return Array.from({ length: BUCKETS }, () => 0);
}

function bucketOf(value: number, bounds: readonly number[]): number {
  const bucket = bounds.findIndex((bound) => value < bound);
  return bucket < 0 ? BUCKETS - 1 : bucket;
}

function increase(counts: number[], bucket: number): void {
  counts[bucket] = (counts[bucket] ?? 0) + 1;
}
