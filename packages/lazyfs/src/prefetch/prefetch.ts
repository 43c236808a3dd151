import { Backoff, type Logger, PantalaError, sleep } from '@pantala/base';
import type { LazyBlob } from '../contract.ts';
import type { PlannedRange, PrefetchPlan } from './plan.ts';

export interface PrefetchOptions {
  /** Whether everything else follows when the lists are there. Default true. */
  readonly all?: boolean;
  /** Ranges fetched at once, 1 to 64. Default 4. */
  readonly lanes?: number;
  readonly logger: Logger;
  readonly signal: AbortSignal;
}

export interface PrefetchResult {
  /** Ranges that no source has the right bytes of: whoever reads them gets an error. */
  readonly broken: number;
}

const LANES = 4;
/** Bytes of a decoded blob that are asked for at once. */
const STEP = 1024 * 1024;
/** Milliseconds of the pauses after failures: sources that are gone may come back any time. */
const FIRST_PAUSE = 1_000;
const LONGEST_PAUSE = 60_000;

/**
 * Fetches what the plan names, in its order, then everything else. Readers come first: the blobs see to that. A source
 * that fails is waited for, as long as the signal allows.
 *
 * @param blobs of the image, in its order
 * @throws the reason of the signal
 */
export async function prefetch(
  plan: PrefetchPlan,
  blobs: readonly LazyBlob[],
  options: PrefetchOptions,
): Promise<PrefetchResult> {
  const { signal, logger } = options;
  const isAll = (options.all ?? true) || plan.everything;
  let broken = 0;
  for (const ranges of [plan.ofImage, plan.ofMount, ...(isAll ? [everythingOf(blobs)] : [])]) {
    const queue = ranges[Symbol.iterator]();
    const lane = async () => {
      for (let next = queue.next(); next.done !== true; next = queue.next()) {
        if (!(await fetchRange(blobs, next.value, logger, signal))) broken++;
      }
    };
    await Promise.all(Array.from({ length: Math.max(1, Math.min(64, options.lanes ?? LANES)) }, lane));
  }
  return { broken };
}

/** What is missing when its turn comes, blob by blob. */
function* everythingOf(blobs: readonly LazyBlob[]): Generator<PlannedRange> {
  for (const [index, blob] of blobs.entries()) {
    for (let start = blob.nextMissing(0); start !== undefined; ) {
      const end = Math.min(blob.size, start + STEP);
      yield { blob: index, start, end };
      start = end < blob.size ? blob.nextMissing(end) : undefined;
    }
  }
}

/** False when nobody has the right bytes. */
async function fetchRange(
  blobs: readonly LazyBlob[],
  { blob: index, start, end }: PlannedRange,
  logger: Logger,
  signal: AbortSignal,
): Promise<boolean> {
  const blob = blobs[index];
  if (blob === undefined) return false;
  const backoff = new Backoff({ initial: FIRST_PAUSE, limit: LONGEST_PAUSE });
  for (;;) {
    try {
      await blob.ensure({ start, end }, { urgency: 'prefetch', signal });
      return true;
    } catch (thrown) {
      if (signal.aborted) throw PantalaError.from(signal.reason);
      const error = PantalaError.from(thrown);
      const fields = { blob: blob.id, start, end, error: error.message };
      if (error.code === 'data-loss' || error.code === 'not-found') {
        logger.error('a part of an image cannot be had', fields);
        return false;
      }
      logger.warn('prefetching pauses after a failure', fields);
    }
    await sleep(backoff.next(), signal);
  }
}
