import { lengthOf } from '@pantala/base';
import type { RafsImage } from '@pantala/rafs';
import type { ReadEvent } from '../cache/index.ts';
import { FileIndex } from './file-index.ts';

/** Which of a mount's files are counted; each costs memory for every file of the image. */
export interface AccountingOptions {
  /** Counters for each file. Default false. */
  readonly files?: boolean;
  /** When each file was read first, and how often. Default false. */
  readonly pattern?: boolean;
  /** Which files were read since the last question. Default false. */
  readonly latest?: boolean;
}

/** Operations in the order of nydusd's counters. */
const OPERATIONS = 15;
const READ = 4;
/** Upper bounds of its size buckets, bytes, and of its latency buckets, microseconds; the last ones have none. */
const SIZES = [1, 4, 16, 64, 128, 512, 1024].map((kib) => kib * 1024);
const LATENCIES = [200, 1_000, 20_000, 50_000, 500_000, 1_000_000, 2_000_000];

interface FileCounters {
  reads: number;
  bytes: number;
  readonly bySize: number[];
  errors: number;
  /** Milliseconds since 1970. */
  readonly firstReadAt: number;
  lastReadAt: number;
}

/**
 * Counts what readers asked a mount for. The kernel serves by itself what it has in memory, and everything of a blob
 * that is complete: so this is what had to be looked at, not every read of every program.
 */
export class MountAccounting {
  readonly options: Required<AccountingOptions>;
  /** Undefined when files are not counted. */
  readonly index: FileIndex | undefined;
  #reads = 0;
  #errors = 0;
  #bytes = 0;
  #microseconds = 0;
  readonly #bySize = zeros(SIZES.length + 1);
  readonly #byLatency = zeros(LATENCIES.length + 1);
  readonly #files = new Map<number, FileCounters>();
  readonly #latest = new Set<number>();

  constructor(image: RafsImage, options: AccountingOptions = {}) {
    this.options = {
      files: options.files ?? false,
      pattern: options.pattern ?? false,
      latest: options.latest ?? false,
    };
    const { files, pattern, latest } = this.options;
    this.index = files || pattern || latest ? new FileIndex(image) : undefined;
  }

  /** For `BlobAccess.onRead`. */
  read(event: ReadEvent): void {
    const length = lengthOf(event.range);
    const size = bucketOf(length, SIZES);
    this.#reads++;
    if (event.failed) this.#errors++;
    else this.#bytes += length;
    this.#microseconds += event.milliseconds * 1000;
    increase(this.#bySize, size);
    increase(this.#byLatency, bucketOf(event.milliseconds * 1000, LATENCIES));
    for (const file of this.index?.filesIn(event.blobId, event.range) ?? []) this.#readFile(file, event, length, size);
  }

  #readFile(file: number, event: ReadEvent, length: number, size: number): void {
    const now = Date.now();
    let counters = this.#files.get(file);
    if (counters === undefined) {
      counters = { reads: 0, bytes: 0, bySize: zeros(SIZES.length + 1), errors: 0, firstReadAt: now, lastReadAt: now };
      this.#files.set(file, counters);
    }
    counters.reads++;
    counters.lastReadAt = now;
    if (event.failed) counters.errors++;
    else counters.bytes += length;
    increase(counters.bySize, size);
    if (this.options.latest) this.#latest.add(file);
  }

  /** As nydusd's `/api/v1/metrics`. */
  filesystem(id: string): object {
    const { files, pattern, latest } = this.options;
    return {
      files_account_enabled: files,
      access_pattern_enabled: pattern,
      record_latest_read_files_enabled: latest,
      measure_latency: true,
      id,
      nr_opens: 0,
      data_read: this.#bytes,
      block_count_read: this.#bySize,
      fop_hits: operations(this.#reads),
      fop_errors: operations(this.#errors),
      fop_cumulative_latency_total: operations(Math.round(this.#microseconds)),
      read_latency_dist: this.#byLatency,
    };
  }

  /** As nydusd's `/api/v1/metrics/files`, by number, with the path beside it; undefined when it is not counted. */
  files(): object | undefined {
    if (!this.options.files) return undefined;
    const entries = [...this.#files].map(([number, counters]) => [
      number,
      {
        path: this.index?.file(number)?.path,
        nr_open: 0,
        total_fops: counters.reads,
        data_read: counters.bytes,
        block_count_read: counters.bySize,
        fop_hits: operations(counters.reads),
        fop_errors: operations(counters.errors),
        first_access_time_secs: Math.floor(counters.firstReadAt / 1000),
        last_access_time_secs: Math.floor(counters.lastReadAt / 1000),
      },
    ]);
    return Object.fromEntries(entries) as object;
  }

  /** As nydusd's `/api/v1/metrics/pattern`, in the order of the first read; undefined when it is not counted. */
  pattern(): object[] | undefined {
    if (!this.options.pattern) return undefined;
    return [...this.#files].map(([ino, { reads, firstReadAt }]) => ({
      ino,
      path: this.index?.file(ino)?.path,
      nr_read: reads,
      first_access_time_secs: Math.floor(firstReadAt / 1000),
      first_access_time_nanos: (firstReadAt % 1000) * 1_000_000,
    }));
  }

  /** Runs `[first, count]` of the files that were read since this was asked last; undefined when it is not counted. */
  latest(): [number, number][] | undefined {
    if (!this.options.latest) return undefined;
    const runs: [number, number][] = [];
    for (const file of [...this.#latest].toSorted((a, b) => a - b)) {
      const last = runs.at(-1);
      if (last !== undefined && file === last[0] + last[1]) last[1]++;
      else runs.push([file, 1]);
    }
    this.#latest.clear();
    return runs;
  }
}

function zeros(length: number): number[] {
  return Array.from({ length }, () => 0);
}

function operations(reads: number): number[] {
  return zeros(OPERATIONS).map((_, at) => (at === READ ? reads : 0));
}

function bucketOf(value: number, bounds: readonly number[]): number {
  const bucket = bounds.findIndex((bound) => value < bound);
  return bucket < 0 ? bounds.length : bucket;
}

function increase(counts: number[], bucket: number): void {
  counts[bucket] = (counts[bucket] ?? 0) + 1;
}
