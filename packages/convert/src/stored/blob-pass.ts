import { PantalaError, throwIfAborted } from '@pantala/base';
import type { ChunkMap, StoredBlob } from '@pantala/rafs';
import type { DecodePool } from './decode-pool.ts';

/** Stored bytes that one thread gets at once: enough that handing them over costs little. */
const GROUP_LENGTH = 4 * 1024 * 1024;
/** Bytes between two chunks that are read with them. */
const GROUP_GAP = 256 * 1024;
/** Chunks that are planned at once: some hundred bytes each. */
const PLANNED_CHUNKS = 4096;

export interface BlobPassOptions {
  readonly pool: DecodePool;
  /** Descriptor of the file that takes decoded chunks; without it they are only checked. */
  readonly output?: number;
  /** Where the decoded blob begins in that file, bytes. Default 0. */
  readonly outputOffset?: number;
  /** Called for each run of stored bytes that is damaged. Without it the first one is thrown. */
  readonly problem?: (message: string) => void;
  /** Called with stored bytes that are done. */
  readonly progress?: (bytes: number) => void;
  readonly signal?: AbortSignal;
}

export interface BlobPassCount {
  readonly chunks: number;
  /** Decoded bytes. */
  readonly bytes: number;
}

/**
 * Goes once through all chunks of a blob, in the order in which they are stored: reads, decodes and checks them, on
 * several threads. Memory is bounded by the threads, whatever the size of the blob.
 *
 * @returns chunks that are right
 * @throws what reading, writing or the signal throws; `data-loss` for damage that nobody wants to be told of
 */
export async function passBlob(stored: StoredBlob, map: ChunkMap, options: BlobPassOptions): Promise<BlobPassCount> {
  const total = { chunks: 0, bytes: 0 };
  const problem = options.problem ?? refuse;
  const output =
    options.output === undefined ? undefined : { descriptor: options.output, offset: options.outputOffset ?? 0 };
  const running = new Set<Promise<unknown>>();
  let failure: unknown;
  for (const range of planned(map)) {
    for (const group of map.fetchGroups(range, { maxLength: GROUP_LENGTH, maxGap: GROUP_GAP })) {
      throwIfAborted(options.signal);
      if (failure !== undefined) break;
      const bytes = await stored.read(group.range);
      const { outcome } = await options.pool.start({ group, stored: bytes, output });
      const job = outcome
        .then(({ chunks, bytes: decoded, problems }) => {
          total.chunks += chunks;
          total.bytes += decoded;
          for (const message of problems) problem(`blob ${stored.name}: ${message}`);
          options.progress?.(group.range.end - group.range.start);
        })
        .catch((error: unknown) => {
          failure ??= error;
        });
      running.add(job);
      void job.then(() => running.delete(job));
    }
  }
  await Promise.all(running);
  if (failure !== undefined) throw failure;
  return total;
}

function refuse(message: string): never {
  throw new PantalaError('data-loss', message);
}

/** The decoded blob in parts of so many chunks. */
function* planned(map: ChunkMap): Generator<{ readonly start: number; readonly end: number }> {
  for (let first = 0; first < map.count; first += PLANNED_CHUNKS) {
    const last = Math.min(map.count, first + PLANNED_CHUNKS) - 1;
    yield { start: map.rangeOf(first).start, end: map.rangeOf(last).end };
  }
}
