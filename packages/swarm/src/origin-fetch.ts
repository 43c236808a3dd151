import { Backoff, type BlockRun, type Geometry, lengthOf, PantalaError, sleep } from '@pantala/base';
import type { Origin } from '@pantala/transfer';
import type { CallerCredentials, Credentials } from './credentials.ts';
import { UNIT_BLOCKS, withinPieces } from './selection/units.ts';

/** Bytes gathered before they are hashed and stored together, twice for each request: one fills, one is stored. */
export const GATHER_LENGTH = 1024 * 1024;
/** Milliseconds that blocks wait for the rest of their unit where nobody waits for them: slow origins give parts. */
const GATHER_TIME = 30;
/** Answers in a row that brought nothing, after which the origin has failed. */
export const MAX_IDLE_ATTEMPTS = 4;

/** What a fetch from the origin needs of the task that it is for. */
export interface OriginFetchTarget {
  readonly geometry: Geometry;
  readonly origin: Pick<Origin, 'fetch'>;
  /** As whom to ask; looked at for each attempt, so that a fresh token takes the place of one that expired. */
  readonly credentials: CallerCredentials;
  /** Takes whole blocks of one piece; `data` is lent until the promise settles. */
  store(run: BlockRun, data: Buffer): Promise<void>;
  /** Called before each block run is gathered: false ends the fetch early, without an error. */
  goOn(next: number): boolean;
  /** Nobody waits for these very blocks: they are stored in whole units, each of which is one write and one news. */
  readonly gather: boolean;
}

/**
 * Fetches a run of blocks in order, and goes on from the first missing byte when the body breaks off.
 *
 * @throws `origin` when the origin refuses; the last error when MAX_IDLE_ATTEMPTS attempts brought nothing; what
 *   `store` throws
 */
export async function fetchFromOrigin(target: OriginFetchTarget, run: BlockRun, signal: AbortSignal): Promise<void> {
  const pauses = new Backoff({ initial: 100, limit: 2000 });
  const end = run.first + run.count;
  let next = run.first;
  let idle = 0;
  while (next < end && target.goOn(next)) {
    const credentials = target.credentials.current;
    const gathered = { next };
    try {
      await fetchOnce(target, credentials, { first: next, count: end - next }, gathered, signal);
      return;
    } catch (thrown) {
      const error = PantalaError.from(thrown);
      idle = gathered.next > next ? 0 : idle + 1;
      next = gathered.next;
      const mayHelp = isPassing(error) || (isRefusal(error) && target.credentials.refuse(credentials));
      if (signal.aborted || !mayHelp || idle >= MAX_IDLE_ATTEMPTS) throw error;
      if (idle > 0) await sleep(pauses.next(), signal);
    }
  }
}

async function fetchOnce(
  target: OriginFetchTarget,
  credentials: Credentials,
  run: BlockRun,
  progress: { next: number },
  signal: AbortSignal,
): Promise<void> {
  const { geometry } = target;
  const range = geometry.runRange(run);
  const capacity = Math.min(GATHER_LENGTH, lengthOf(range));
  let filling: Buffer = Buffer.allocUnsafeSlow(capacity);
  let spare: Buffer | undefined;
  let filled = 0;
  let gathered = run.first;
  let storing: Promise<void> | undefined;
  let failure: PantalaError | undefined;

  const storeWhole = (now = !target.gather): void => {
    const offset = geometry.blockRange(gathered).start + filled;
    const whole = offset >= range.end ? run.first + run.count : geometry.blockAt(offset);
    const stop = now || offset >= range.end ? whole : whole - (whole % UNIT_BLOCKS);
    if (stop <= gathered) return;
    impatient?.refresh();
    const stored = { first: gathered, count: stop - gathered };
    const bytes = lengthOf(geometry.runRange(stored));
    const full = filling;
    filling = spare ?? Buffer.allocUnsafeSlow(capacity);
    spare = undefined;
    full.copy(filling, 0, bytes, filled);
    filled -= bytes;
    gathered = stop;
    storing = storeRun(target, stored, full).then(
      () => {
        progress.next = stop;
        spare = full;
        storing = undefined;
        // What arrived meanwhile must not wait for more to come.
        storeWhole();
      },
      (error: unknown) => {
        failure = PantalaError.from(error);
        storing = undefined;
      },
    );
  };
  const settle = async (): Promise<void> => {
    while (storing !== undefined) await storing;
    if (failure !== undefined) throw failure;
  };

  const impatient = target.gather
    ? setInterval(() => {
        if (storing === undefined && failure === undefined) storeWhole(true);
      }, GATHER_TIME)
    : undefined;
  using _stopped = { [Symbol.dispose]: () => clearInterval(impatient) };
  await using body = await target.origin.fetch({ ...credentials, range, signal });
  if (body.contentLength !== undefined && body.contentLength !== geometry.contentLength) {
    throw new PantalaError(
      'data-loss',
      `${credentials.url} has ${body.contentLength} bytes now; it had ${geometry.contentLength} before`,
      { details: { changed: true } },
    );
  }
  try {
    for await (const chunk of body.chunks) {
      let at = 0;
      while (at < chunk.length) {
        if (filled === capacity) {
          if (storing === undefined) storeWhole();
          await storing;
          if (failure !== undefined) throw failure;
          continue;
        }
        const taken = chunk.copy(filling, filled, at, Math.min(chunk.length, at + capacity - filled));
        filled += taken;
        at += taken;
      }
      if (failure !== undefined) throw failure;
      if (storing === undefined) storeWhole();
      if (gathered < run.first + run.count && !target.goOn(gathered)) break;
    }
  } finally {
    while (storing !== undefined) await storing;
    if (failure === undefined) storeWhole(true);
    await settle();
  }
}

async function storeRun(target: OriginFetchTarget, run: BlockRun, data: Buffer): Promise<void> {
  let offset = 0;
  for (const part of withinPieces(target.geometry, run, run.count)) {
    const length = lengthOf(target.geometry.runRange(part));
    await target.store(part, data.subarray(offset, offset + length));
    offset += length;
  }
}

/** Worth another attempt as it is. */
function isPassing(error: PantalaError): boolean {
  if (error.code === 'unavailable' || error.code === 'deadline-exceeded') return true;
  const { status } = error.details;
  return error.code === 'origin' && (status === undefined || (typeof status === 'number' && status >= 500));
}

/** Worth another attempt with other credentials. */
function isRefusal(error: PantalaError): boolean {
  return error.code === 'origin' && (error.details.status === 401 || error.details.status === 403);
}
