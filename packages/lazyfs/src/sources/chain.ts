import {
  AbortScope,
  Backoff,
  type ByteRange,
  type ErrorCode,
  type Logger,
  lengthOf,
  monotonicNow,
  PantalaError,
  sleep,
  throwIfAborted,
} from '@pantala/base';
import type { BlobFetcher, Fetched, FetchOptions } from '../cache/index.ts';
import type { BlobSource } from '../contract.ts';
import type { SourceHealth } from './health.ts';
import type { BackendCounters, SourceMetrics } from './metrics.ts';

export interface ChainMember {
  readonly source: BlobSource;
  readonly health: SourceHealth;
}

export interface ChainParts {
  /** In the order in which they are asked. */
  readonly members: readonly ChainMember[];
  readonly metrics: SourceMetrics;
  readonly logger: Logger;
  /** Milliseconds after which a read fails in any case. Default 60,000. */
  readonly deadline?: number;
  /** Closed with the chain. */
  readonly resources?: AsyncDisposable;
}

/** Milliseconds of silence after which a prefetch goes elsewhere: nobody waits for it. */
const PREFETCH_PATIENCE = 10_000;
/** Pauses between rounds in which every source failed, milliseconds. */
const FIRST_PAUSE = 200;
const LONGEST_PAUSE = 3_000;
/** Rounds of a prefetch. It comes again by itself. */
const PREFETCH_ROUNDS = 2;

/** Failures that may pass by themselves: the sources are asked again until the deadline. */
const PASSING: ReadonlySet<ErrorCode> = new Set(['unavailable', 'deadline-exceeded', 'resource-exhausted', 'origin']);
/** Failures that say something of the question and nothing of the source's health. */
const NO_FAULT: ReadonlySet<ErrorCode> = new Set(['not-found', 'unauthenticated', 'permission-denied', 'cancelled']);

/** One source being asked. */
interface Attempt {
  readonly member: ChainMember;
  readonly scope: AbortScope;
  readonly startedAt: number;
  firstSignAt: number | undefined;
  heardAt: number;
  settled: Promise<Fetched | PantalaError>;
}

/**
 * Asks sources in order. One that fails is followed by the next at once; one that is silent for longer than its
 * patience is not waited for, the next is asked as well and whoever is first is taken. So a dead source in front costs
 * one reader less than half a second, and the others nothing.
 */
export class SourceChain implements BlobFetcher, AsyncDisposable {
  readonly #parts: ChainParts;

  constructor(parts: ChainParts) {
    this.#parts = parts;
  }

  /** What nydusd's API tells of a back end. */
  get counters(): Readonly<BackendCounters> {
    return this.#parts.metrics.counters;
  }

  get sourceNames(): readonly string[] {
    return this.#parts.members.map(({ source }) => source.name);
  }

  async fetch(blobId: string, range: ByteRange, options: FetchOptions): Promise<Fetched> {
    const what = `bytes ${range.start} to ${range.end} of blob ${blobId}`;
    using scope = new AbortScope([options.signal], {
      timeout: this.#parts.deadline ?? 60_000,
      what: `reading ${what}`,
    });
    const backoff = new Backoff({ initial: FIRST_PAUSE, limit: LONGEST_PAUSE });
    for (;;) {
      const members = this.#candidates(options.avoid);
      if (members.length === 0) throw new PantalaError('unavailable', `${what}: every source gave wrong bytes`);
      const errors = new Map<ChainMember, PantalaError>();
      const fetched = await this.#round(members, blobId, range, { ...options, signal: scope.signal }, errors);
      if (fetched !== undefined) return fetched;
      throwIfAborted(scope.signal);
      const last = this.#parts.members.findLast((member) => errors.has(member)) as ChainMember;
      const error = verdict(errors, last, what);
      const isLast = options.urgency === 'prefetch' && backoff.attempts + 1 >= PREFETCH_ROUNDS;
      // What the last one says is final, since it is the registry: others may be gone while it knows that there is nothing.
      if (!PASSING.has(error.code) || isLast) throw error;
      // Once for each read: it may wait for its deadline, and says nothing else of why.
      const level = backoff.attempts === 0 ? 'warn' : 'debug';
      this.#parts.logger[level]('every source failed; they are asked again', { blob: blobId, range, error });
      await sleep(Math.max(backoff.next(), retryAfter(errors.values())), scope.signal).catch(() => {
        // Why it failed says more than that its time is over.
        throw options.signal.aborted ? PantalaError.from(options.signal.reason) : error;
      });
    }
  }

  /**
   * Has the source that will be asked first prepare for reads of a blob. Whatever fails is found out again by the first
   * read, which goes elsewhere then.
   */
  async prepare(blobId: string, signal: AbortSignal): Promise<void> {
    const first = this.#candidates(new Set())[0]?.source;
    await first?.prepare?.(blobId, signal).catch((error: unknown) => {
      this.#parts.logger.debug('a source could not prepare', { source: first.name, blob: blobId, error });
    });
  }

  blame(source: string): void {
    const member = this.#parts.members.find((each) => each.source.name === source);
    member?.health.silent();
    this.#parts.logger.warn('a source gave wrong bytes where another one had the right ones', { source });
  }

  /** Usable ones first; the others only when these failed. */
  #candidates(avoid: ReadonlySet<string>): ChainMember[] {
    const members = this.#parts.members.filter(({ source }) => !avoid.has(source.name));
    return [...members.filter(({ health }) => health.usable), ...members.filter(({ health }) => !health.usable)];
  }

  async #round(
    members: readonly ChainMember[],
    blobId: string,
    range: ByteRange,
    options: FetchOptions,
    errors: Map<ChainMember, PantalaError>,
  ): Promise<Fetched | undefined> {
    const running = new Set<Attempt>();
    let next = 0;
    try {
      while (next < members.length || running.size > 0) {
        if (running.size === 0 && next < members.length) {
          running.add(this.#ask(members[next++] as ChainMember, blobId, range, options));
        }
        const outcome = await this.#firstOf(running, options, next < members.length);
        if (outcome === 'silence') {
          for (const { member } of running) if (member.health.usable) member.health.silent();
          running.add(this.#ask(members[next++] as ChainMember, blobId, range, options));
        } else if ('error' in outcome) {
          running.delete(outcome.attempt);
          errors.set(outcome.attempt.member, outcome.error);
        } else return outcome.fetched;
      }
      return undefined;
    } finally {
      for (const { scope } of running) scope.abort(new PantalaError('cancelled', 'another source was faster'));
    }
  }

  /** The first attempt that ends, or the silence of all of them. */
  async #firstOf(
    running: ReadonlySet<Attempt>,
    { urgency }: FetchOptions,
    hasNext: boolean,
  ): Promise<'silence' | { attempt: Attempt; error: PantalaError } | { fetched: Fetched }> {
    const ends = [...running].map(async (attempt) => {
      const settled = await attempt.settled;
      return settled instanceof PantalaError ? { attempt, error: settled } : { fetched: settled };
    });
    if (!hasNext) return Promise.race(ends);
    using watch = new SilenceWatch([...running], urgency);
    return await Promise.race([...ends, watch.silence]);
  }

  #ask(member: ChainMember, blobId: string, range: ByteRange, options: FetchOptions): Attempt {
    const { metrics } = this.#parts;
    const { source, health } = member;
    const scope = new AbortScope([options.signal]);
    const startedAt = monotonicNow();
    const attempt: Attempt = {
      member,
      scope,
      startedAt,
      firstSignAt: undefined,
      heardAt: startedAt,
      settled: Promise.resolve(new PantalaError('internal', 'not begun')),
    };
    const progress = (received: Uint8Array) => {
      attempt.heardAt = monotonicNow();
      attempt.firstSignAt ??= attempt.heardAt;
      options.progress(received, source.name);
    };
    const read = async (): Promise<Fetched | PantalaError> => {
      try {
        const { urgency } = options;
        const bytes = await source.read(blobId, range, { urgency, signal: scope.signal, progress });
        if (bytes.length !== lengthOf(range)) {
          throw new PantalaError('origin', `${source.name} gave ${bytes.length} bytes for ${lengthOf(range)}`);
        }
        const now = monotonicNow();
        health.succeeded((attempt.firstSignAt ?? now) - startedAt);
        metrics.read(source.name, bytes.length, now - startedAt);
        return { bytes, source: source.name, release: () => releaseMemory(bytes) };
      } catch (thrown) {
        const error = PantalaError.from(thrown);
        const isOurs = scope.signal.aborted;
        if (!isOurs && !NO_FAULT.has(error.code)) health.failed();
        if (!isOurs) metrics.failed(source.name, error.code);
        return error;
      } finally {
        scope[Symbol.dispose]();
      }
    };
    attempt.settled = read();
    return attempt;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const { health } of this.#parts.members) health[Symbol.dispose]();
    await this.#parts.resources?.[Symbol.asyncDispose]();
  }
}

/** Resolves when none of some attempts has given a sign for as long as its patience. */
class SilenceWatch implements Disposable {
  readonly silence: Promise<'silence'>;
  #timer: NodeJS.Timeout | undefined;

  constructor(attempts: readonly Attempt[], urgency: FetchOptions['urgency']) {
    const patienceOf = ({ member: { health } }: Attempt) =>
      urgency === 'prefetch' ? PREFETCH_PATIENCE : health.usable ? health.patience : 0;
    this.silence = new Promise((resolve) => {
      const look = () => {
        const now = monotonicNow();
        const left = attempts.map((attempt) => attempt.heardAt + patienceOf(attempt) - now);
        const wait = Math.max(...left);
        if (wait <= 0) resolve('silence');
        else this.#timer = setTimeout(look, wait);
      };
      look();
    });
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
  }
}

function releaseMemory({ buffer }: Uint8Array): void {
  if (buffer instanceof ArrayBuffer && !buffer.detached) buffer.transfer(0);
}

/** What a reader is told: the last source's word, which is the registry's, with what the others said. */
function verdict(errors: ReadonlyMap<ChainMember, PantalaError>, last: ChainMember, what: string): PantalaError {
  const word = errors.get(last) as PantalaError;
  if (errors.size === 1) return word;
  const said = Array.from(errors.values(), ({ message }) => message).join('; ');
  return new PantalaError(word.code, `${what}: every source failed: ${said}`, { cause: word, details: word.details });
}

/** Milliseconds that a source told to wait. */
function retryAfter(errors: Iterable<PantalaError>): number {
  const told = Array.from(errors, ({ details }) => Number(details.retryAfter ?? 0) * 1000).filter((each) => each > 0);
  return Math.min(10_000, ...(told.length === 0 ? [0] : told));
}
