import { type BlockRun, type ByteRange, type Logger, lengthOf, monotonicNow, PantalaError } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { DownloadRequest } from './contract.ts';
import type { Demand, Demands } from './demand.ts';
import type { Environment } from './environment.ts';
import { FIRST_SIGN_TIMEOUT, Hedge } from './hedge.ts';
import type { Membership } from './membership.ts';
import type { OriginSource } from './origin-source.ts';
import type { ParentSet, Sign } from './parent-set.ts';
import { Prefetch } from './prefetch.ts';
import type { Selection } from './selection/selection.ts';

/** Milliseconds between two looks at whether somebody waits in vain. */
const TICK = 100;
/** Blocks that a static seed is asked to fetch ahead: 8 MiB. */
const STATIC_AHEAD = 512;
/** Milliseconds that a reader waits for the scheduler's first answer before it goes to the origin by itself. */
const ANSWER_TIMEOUT = 400;

/** What there is to choose from, and for whom. */
export interface SourcingDependencies {
  readonly env: Environment;
  readonly task: StoredTask;
  readonly logger: Logger;
  readonly selection: Selection;
  readonly demands: Demands;
  readonly parents: ParentSet;
  readonly membership: Membership;
  readonly origin: OriginSource;
  readonly signal: AbortSignal;
  /** The request with the newest credentials. */
  request(): DownloadRequest;
  /** Nothing is to be fetched at present: all is held and being checked, or the download is over. */
  resting(): boolean;
  /** Readers cannot be served. */
  failed(error: PantalaError): void;
}

/** Who is asked for what next: parents for what they hold, a seed for what nobody holds, the origin as a last resort. */
export class Sourcing implements Disposable {
  readonly #deps: SourcingDependencies;
  readonly #prefetch: Prefetch;
  readonly #hedge: Hedge;
  #prefetching = false;
  /** Digests came that nobody but another peer stands for. */
  #unconfirmed = false;
  #timer: NodeJS.Timeout | undefined;
  #woken = false;

  constructor(deps: SourcingDependencies) {
    this.#deps = deps;
    const { task, env, signal } = deps;
    this.#prefetch = new Prefetch(task.geometry, env.prefetchLimiter, signal, () => this.wakeUp());
    this.#hedge = new Hedge(task);
  }

  /** The rest of the task is wanted although nobody waits for it. */
  get prefetching(): boolean {
    return this.#prefetching;
  }

  prefetch(): void {
    if (this.#prefetching || this.#deps.task.complete) return;
    this.#prefetching = true;
    this.wakeUp();
  }

  stopPrefetch(): void {
    this.#prefetching = false;
  }

  /** Digests of content that cannot be checked as a whole came from another peer: a second fetch confirms them. */
  confirm(): void {
    this.#unconfirmed = true;
    this.wakeUp();
  }

  /** Whether the request ever allows to ask the origin. */
  get mayEverAsk(): boolean {
    return this.#deps.request().disableBackToSource !== true;
  }

  /** Everything that is wanted in bulk. */
  bulkBlocks(): BlockRun | undefined {
    const { demands, task } = this.#deps;
    return this.#prefetching ? { first: 0, count: task.geometry.blockCount } : demands.bulkBlocks();
  }

  /** What a scheduler is told of what is wanted. */
  wanted(): { readonly bulk: boolean; readonly range: ByteRange } {
    const { demands, task } = this.#deps;
    const bulk = this.bulkBlocks() !== undefined;
    return { bulk, range: demands.first?.range ?? { start: 0, end: task.geometry.contentLength } };
  }

  /** Something has changed: looks at what to do about it once this turn of the event loop is over. */
  wakeUp(): void {
    if (this.#woken) return;
    this.#woken = true;
    setImmediate(() => {
      this.#woken = false;
      this.#step();
    });
  }

  [Symbol.dispose](): void {
    this.#setTimer(false);
  }

  #step(): void {
    const { task, demands, membership, origin, selection, parents } = this.#deps;
    if (this.#deps.signal.aborted) return;
    if (task.complete || this.#deps.resting()) {
      this.#setTimer(false);
      return;
    }
    const wanted = demands.size > 0 || this.#prefetching;
    this.#setTimer(wanted);
    if (!wanted) {
      origin.stopStream();
      return;
    }
    membership.join();
    const now = monotonicNow();
    selection.piecesHelpReaders(task.description.digest === undefined || !this.mayEverAsk);
    const urgent = [...demands.urgentBlocks()];
    const bulk = demands.bulkBlocks() ?? this.#prefetchBlocks();
    for (const request of selection.next(urgent, bulk, now)) parents.ask(request);
    for (const run of urgent) this.#serveUnoffered(run, now);
    if (bulk !== undefined) this.#fetchBulk(bulk);
    for (const demand of demands) {
      // What is provisional becomes visible with the whole alone.
      if (this.#isProvisional(demand)) this.prefetch();
      this.#hedgeFor(demand, now);
    }
    this.#failHopeless();
  }

  /** What of a prefetch may be asked for now. */
  #prefetchBlocks(): BlockRun | undefined {
    if (!this.#prefetching) return undefined;
    return this.#prefetch.allowed((wanted) => this.#deps.selection.missing(wanted));
  }

  /** Urgent blocks that no parent holds: a seed fetches them, or we do. */
  #serveUnoffered(run: BlockRun, now: number): void {
    const { selection, parents, membership, origin } = this.#deps;
    // Nobody came within a short time: neither a seed nor leave to ask the origin.
    const late = this.mayEverAsk && membership.waited(now) > ANSWER_TIMEOUT && !parents.hasSeed;
    for (const gap of selection.missing(run)) {
      // A parent has it, but its digest is still to come.
      const offered = parents.size > 0 && selection.isOffered(gap.first);
      if (offered && membership.backToSource !== 'free') continue;
      if (parents.fetchMissing(gap)) continue;
      if (!this.#mayAskOrigin() && !late) continue;
      if (late) this.#doubtSilent();
      origin.fetch(gap);
    }
  }

  #fetchBulk(bulk: BlockRun): void {
    const { selection, parents, membership, origin } = this.#deps;
    if (this.#mayAskOrigin()) {
      // With leave to ask the origin for the rest, what others hold is theirs to give.
      const sparing = membership.backToSource === 'granted' && !this.#unconfirmed;
      if (!sparing || !parents.introducing(monotonicNow(), FIRST_SIGN_TIMEOUT)) origin.stream(bulk, sparing);
      return;
    }
    origin.yieldToOthers();
    // Nobody told a static seed that everything is wanted: it fetches what it is asked for, a window at a time.
    if (!membership.static || parents.fetchingMissing) return;
    const [gap] = selection.missing(bulk);
    if (gap !== undefined) parents.fetchMissing({ first: gap.first, count: Math.min(gap.count, STATIC_AHEAD) });
  }

  #isProvisional({ position, range }: Demand): boolean {
    const { task } = this.#deps;
    return position < range.end && task.provisional.has(task.geometry.blockAt(position));
  }

  #mayAskOrigin(): boolean {
    const { membership, parents } = this.#deps;
    if (!this.mayEverAsk) return false;
    if (membership.backToSource !== 'waiting') return true;
    // A seed's word is worth waiting for: one hedge of one peer would send everybody else to the origin.
    return this.#unconfirmed && membership.answered && !parents.hasSeed;
  }

  /** Asks the origin as well for what a reader waits for from a parent that is silent. */
  #hedgeFor(demand: Demand, now: number): void {
    const { origin, task, env, logger } = this.#deps;
    if (!this.mayEverAsk || origin.busy) return;
    const run = this.#hedge.due(demand, now, (block) => this.#signAbout(block));
    if (run === undefined) return;
    this.#doubtSilent();
    const bytes = lengthOf(task.geometry.runRange(run));
    env.metrics.hedged.add(bytes);
    logger.info('parents are silent; the origin is asked as well', { first: run.first, bytes });
    origin.fetch(run);
  }

  /** A scheduler that has answered is heard of as long as it has nobody to offer. */
  #signAbout(block: number): Sign {
    const { parents, membership } = this.#deps;
    const sign = parents.signAbout(block);
    return parents.size === 0 ? { ...sign, heard: membership.answered } : sign;
  }

  /** A reader has lost a time-out to parts that never answered; the next one must not lose it again. */
  #doubtSilent(): void {
    this.#deps.parents.doubtSilent();
    this.#deps.membership.doubtSilent();
  }

  /** Nobody is left to ask, and the origin must not be. */
  #failHopeless(): void {
    const { membership, parents } = this.#deps;
    if (this.mayEverAsk || membership.backToSource === 'waiting' || parents.size > 0) return;
    this.#deps.failed(
      new PantalaError('unavailable', 'no peer has the content, and the request forbids to ask its origin'),
    );
  }

  #setTimer(on: boolean): void {
    if (on && this.#timer === undefined) this.#timer = setInterval(() => this.#tick(), TICK);
    if (on) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #tick(): void {
    this.#deps.membership.tick(monotonicNow());
    this.#step();
  }
}
