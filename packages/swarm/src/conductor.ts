import type { pantalaV1, Received } from '@pantala/api';
import {
  type BlockRun,
  type ByteRange,
  type ContentDigest,
  type Logger,
  lengthOf,
  monotonicNow,
  PantalaError,
  parseContentDigest,
  peerId,
  throwIfAborted,
} from '@pantala/base';
import type { StoredTask, StoreEvent } from '@pantala/store';
import { type DownloadRequest, URGENT_LENGTH } from './contract.ts';
import { Demand, isMostOf } from './demand.ts';
import type { Environment } from './environment.ts';
import { Intake } from './intake.ts';
import { OriginSource } from './origin-source.ts';
import { ParentSet } from './parent-set.ts';
import { DigestReport } from './schedulers/digests.ts';
import { type Candidate, SchedulerSession } from './schedulers/session.ts';
import { Selection } from './selection/selection.ts';
import { Traffic } from './traffic.ts';
import type { DigestJob } from './whole-digest/whole-digest.ts';

/** Milliseconds between two looks at whether somebody waits in vain. */
const TICK = 100;
/** Milliseconds that a parent may be silent before the origin is asked as well (never less). */
export const HEDGE_AFTER = 1000;
/** How many of its usual answers a parent may be silent. */
export const HEDGE_ANSWERS = 4;
/** Bytes that are asked of the origin for a reader whose parent is silent; twice as many each time it stays so. */
const FIRST_HEDGE = 1024 * 1024;
const LONGEST_HEDGE = 64 * 1024 * 1024;
/** Blocks that a static seed is asked to fetch ahead: 8 MiB. */
const STATIC_AHEAD = 512;
/** Milliseconds that a reader waits for the scheduler's first answer before it goes to the origin by itself. */
const ANSWER_TIMEOUT = 500;
/** Milliseconds that a lost scheduler has to come back before the origin takes its place. */
const SCHEDULER_GRACE = 3000;
/** Milliseconds for which digests are gathered before they are reported together. */
const REPORT_DELAY = 4;
/** Times that a content whose whole digest was wrong is fetched anew, from the origin alone. */
const MAX_RESTARTS = 1;

/** Whether the origin may be asked: not yet known, granted by the scheduler, nobody can say, or never. */
type BackToSource = 'waiting' | 'granted' | 'free' | 'never';

export interface ConductorListener {
  /** Everything is held and right. */
  completed(conductor: Conductor): void;
}

/** The download of one task: brings what readers want from whoever can give it best into the store. */
export class Conductor implements AsyncDisposable {
  readonly task: StoredTask;
  readonly traffic = new Traffic();
  readonly startedAt = monotonicNow();
  readonly #env: Environment;
  readonly #listener: ConductorListener;
  readonly #logger: Logger;
  readonly #selection: Selection;
  readonly #intake: Intake;
  readonly #parents: ParentSet;
  readonly #origin: OriginSource;
  readonly #digests: DigestReport;
  readonly #subscription: Disposable;
  readonly #stop = new AbortController();
  readonly #demands = new Set<Demand>();
  readonly #fetchedForOthers = new Set<Promise<void>>();
  readonly #everything: BlockRun;
  readonly peerId: string;
  #request: DownloadRequest;
  #prefetching = false;
  #backToSource: BackToSource = 'waiting';
  #session: SchedulerSession | undefined;
  #joining: Promise<void> | undefined;
  #joinedAt = 0;
  #registered: 'nothing' | 'range' | 'whole' = 'nothing';
  #lostAt: number | undefined;
  /** Static seeds stand in for the scheduler. */
  #static = false;
  #hedgedAt = Number.NEGATIVE_INFINITY;
  #hedgeLength = FIRST_HEDGE;
  #job: DigestJob | undefined;
  #timer: NodeJS.Timeout | undefined;
  #reportTimer: NodeJS.Timeout | undefined;
  #pumping = false;
  #finishing = false;
  #closed = false;
  #restarts = 0;
  #reportedPieces = new Set<number>();
  #pieceParents = new Map<number, string>();

  constructor(
    env: Environment,
    task: StoredTask,
    request: DownloadRequest,
    ranges: boolean,
    listener: ConductorListener,
  ) {
    this.#env = env;
    this.task = task;
    this.#request = request;
    this.#listener = listener;
    this.peerId = peerId(env.options.host);
    this.#logger = env.logger.child({ task: task.description.id });
    this.#everything = { first: 0, count: task.geometry.blockCount };
    this.#selection = new Selection(task.geometry, { host: env.options.hostId });
    this.#digests = new DigestReport(task);
    this.#intake = new Intake(task, {
      storedFromParent: (parent, run, bytes) => this.#storedFromParent(parent, run, bytes),
      wrongBlocks: (parent) => this.#session?.badParent(parent, 'blocks that do not match their digests'),
      unverified: (bytes) => env.metrics.unverified.add(bytes),
      failed: (error) => this.#fail(error),
    });
    this.#parents = new ParentSet({
      task,
      selection: this.#selection,
      intake: this.#intake,
      hosts: env.hosts,
      logger: this.#logger,
      request: () => this.#request,
      bulk: () => this.#bulkBlocks() !== undefined,
      changed: () => this.#wakeUp(),
      lost: (candidate, error, bad) => this.#parentLost(candidate, error, bad),
      storeFailed: (error) => this.#fail(error),
    });
    this.#origin = new OriginSource({
      geometry: task.geometry,
      origin: env.origin,
      ranges,
      selection: this.#selection,
      credentials: () => this.#credentials(),
      store: (run, data) => this.#storeFromOrigin(run, data),
      ended: (error) => this.#originEnded(error),
      signal: this.#stop.signal,
    });
    for (const run of task.blocks.runs(true)) this.#selection.held(run);
    for (const run of task.provisional.runs(true)) this.#selection.held(run);
    this.#subscription = task.subscribe((event) => this.#storeChanged(event));
    env.metrics.tasks.add();
    env.metrics.runningTasks.add(1);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Nobody waits for anything. */
  get idle(): boolean {
    return this.#demands.size === 0 && !this.#prefetching && this.#fetchedForOthers.size === 0 && !this.#finishing;
  }

  /** Whether the origin is being asked at this moment. */
  get asksOrigin(): boolean {
    return this.#origin.busy;
  }

  /** Another request for the same task: its credentials are the newest now. */
  join(request: DownloadRequest): void {
    const stays = this.#request.needBackToSource === true && request.needBackToSource !== true;
    this.#request = stays ? { ...request, needBackToSource: true } : request;
  }

  /** Fetches the rest of the task without a reader. */
  prefetch(): void {
    if (this.#prefetching || this.task.complete) return;
    this.#prefetching = true;
    this.#wakeUp();
  }

  /**
   * Yields a range as its bytes come into the store, in order.
   *
   * @throws the reason when they cannot be had
   */
  async *extents(range: ByteRange, signal: AbortSignal): AsyncGenerator<ByteRange> {
    const bulk = lengthOf(range) > URGENT_LENGTH && isMostOf(range, this.task.geometry.contentLength);
    const demand = new Demand(range, bulk, monotonicNow());
    this.#demands.add(demand);
    try {
      while (demand.position < range.end) {
        throwIfAborted(signal);
        const end = Math.min(range.end, this.task.availableFrom(demand.position));
        if (end > demand.position) {
          const part = { start: demand.position, end };
          demand.advance(end, monotonicNow());
          if (!this.task.complete) this.#wakeUp();
          yield part;
          demand.waitingSince = monotonicNow();
          continue;
        }
        if (this.#closed) throw new PantalaError('cancelled', 'the download was stopped');
        const woken = demand.wait(signal);
        this.#wakeUp();
        await woken;
      }
    } finally {
      this.#demands.delete(demand);
      this.#wakeUp();
    }
  }

  /** Has a seed fetch blocks on behalf of a child. Resolves when they are held. */
  async fetchMissing(run: BlockRun, signal: AbortSignal): Promise<void> {
    const work = this.#fetchForChild(run, signal);
    this.#fetchedForOthers.add(work);
    try {
      await work;
    } finally {
      this.#fetchedForOthers.delete(work);
    }
  }

  /** Nobody needs it any more. What is held stays; the scheduler knows this peer as the holder of a part. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#timer);
    clearTimeout(this.#reportTimer);
    this.#sendReports();
    this.#subscription[Symbol.dispose]();
    this.#stop.abort(new PantalaError('cancelled', 'the download was stopped'));
    for (const demand of this.#demands) demand.fail(new PantalaError('cancelled', 'the download was stopped'));
    this.#job?.[Symbol.dispose]();
    await this.#parents[Symbol.asyncDispose]();
    await this.#origin.settled();
    await this.#session?.[Symbol.asyncDispose]();
    this.#env.metrics.runningTasks.add(-1);
  }

  // What to do next.

  #wakeUp(): void {
    if (this.#pumping || this.#closed) return;
    this.#pumping = true;
    setImmediate(() => {
      this.#pumping = false;
      if (!this.#closed) this.#pump();
    });
  }

  #pump(): void {
    if (this.task.complete || this.#finishing) return;
    const wanted = this.#demands.size > 0 || this.#prefetching;
    this.#setTimer(wanted);
    if (!wanted) {
      this.#origin.stopStream();
      return;
    }
    this.#join();
    const now = monotonicNow();
    const urgent = [...this.#urgentBlocks()];
    const bulk = this.#bulkBlocks();
    for (const request of this.#selection.next(urgent, bulk, now)) this.#parents.ask(request);
    for (const run of urgent) this.#serveUnoffered(run);
    if (bulk !== undefined && this.#mayAskOrigin()) this.#origin.stream(bulk);
    else if (bulk !== undefined && this.#static) this.#fetchAhead(bulk);
    if (this.#backToSource !== 'never') for (const demand of this.#demands) this.#hedge(demand, now);
  }

  *#urgentBlocks(): Generator<BlockRun> {
    for (const demand of this.#demands) {
      const run = demand.urgentBlocks(this.task.geometry);
      if (run !== undefined) yield run;
    }
  }

  /** The blocks between the first and the last that are wanted in bulk. */
  #bulkBlocks(): BlockRun | undefined {
    if (this.#prefetching) return this.#everything;
    let first = Number.POSITIVE_INFINITY;
    let end = 0;
    for (const demand of this.#demands) {
      if (!demand.bulk || demand.position >= demand.range.end) continue;
      const run = this.task.geometry.blocksOf({ start: demand.position, end: demand.range.end });
      first = Math.min(first, run.first);
      end = Math.max(end, run.first + run.count);
    }
    return first < end ? { first, count: end - first } : undefined;
  }

  /** Urgent blocks that no parent holds: a seed fetches them, or we do. */
  #serveUnoffered(run: BlockRun): void {
    for (const gap of [...this.#selection.missing(run)]) {
      // A parent has it, but its digest is still to come.
      if (this.#parents.size > 0 && this.#selection.isOffered(gap.first) && this.#backToSource !== 'free') continue;
      if (this.#parents.fetchMissing(gap)) continue;
      if (this.#mayAskOrigin() || this.#waitedLongEnough()) this.#origin.fetch(gap);
    }
  }

  /** Nobody told a static seed that everything is wanted: it fetches what it is asked for, a window at a time. */
  #fetchAhead(bulk: BlockRun): void {
    const [gap] = this.#selection.missing(bulk);
    if (gap === undefined || this.#parents.fetchingMissing) return;
    this.#parents.fetchMissing({ first: gap.first, count: Math.min(gap.count, STATIC_AHEAD) });
  }

  #mayAskOrigin(): boolean {
    return this.#backToSource === 'granted' || this.#backToSource === 'free';
  }

  /** A reader has waited for the scheduler or for a seed to appear, and neither came. */
  #waitedLongEnough(): boolean {
    if (this.#backToSource === 'never' || this.#joinedAt === 0) return false;
    return monotonicNow() - this.#joinedAt > ANSWER_TIMEOUT && !this.#parents.hasSeed;
  }

  #setTimer(on: boolean): void {
    if (on && this.#timer === undefined) this.#timer = setInterval(() => this.#tick(), TICK);
    if (on) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #tick(): void {
    const now = monotonicNow();
    if (this.#lostAt !== undefined) this.#reviveSession(now);
    this.#pump();
  }

  /** Asks the origin as well for what a reader waits for from a parent that is silent. */
  #hedge(demand: Demand, now: number): void {
    const { geometry } = this.task;
    if (demand.position >= demand.range.end || this.#origin.busy) return;
    const block = geometry.blockAt(demand.position);
    if (this.task.blocks.has(block)) return;
    const sign = this.#parents.signAbout(block);
    const stillSilent = sign.at < this.#hedgedAt;
    if (!stillSilent) {
      const patience = Math.max(HEDGE_AFTER, HEDGE_ANSWERS * sign.usualAnswer);
      if (now - Math.max(demand.waitingSince, sign.at) < patience) return;
      this.#hedgeLength = FIRST_HEDGE;
    }
    this.#hedgedAt = now;
    const end = Math.min(demand.range.end, demand.position + this.#hedgeLength);
    this.#hedgeLength = Math.min(LONGEST_HEDGE, this.#hedgeLength * 2);
    const wanted = geometry.blocksOf({ start: demand.position, end });
    const stop = Math.min(wanted.first + wanted.count, this.task.blocks.next(true, block));
    const run = { first: block, count: stop - block };
    const bytes = lengthOf(geometry.runRange(run));
    this.#env.metrics.hedged.add(bytes);
    this.#logger.info('parents are silent; the origin is asked as well', { first: run.first, bytes });
    this.#origin.fetch(run);
  }

  // The scheduler.

  #join(): void {
    const wholly = this.#bulkBlocks() !== undefined;
    if (this.#joining === undefined) this.#joining = this.#joinOnce();
    else if (this.#session !== undefined && wholly && this.#registered === 'range') this.#register(this.#session);
  }

  async #joinOnce(): Promise<void> {
    const { schedulers, options } = this.#env;
    this.#joinedAt = monotonicNow();
    if (this.#request.needBackToSource === true) this.#backToSource = 'granted';
    try {
      await schedulers.firstWord();
      const link = schedulers.linkOf(this.task.description.id);
      if (this.#closed) return;
      if (link === undefined) {
        this.#withoutScheduler();
        return;
      }
      this.#setDigestsExpected(link.pantala);
      this.#session = new SchedulerSession(link, options.hostId, this.peerId, this.task, {
        parentsOffered: (candidates) => this.#parents.offer(candidates),
        backToSourceGranted: () => this.#allow('granted'),
        sessionLost: (error) => this.#sessionLost(error),
        digestNews: (news) => this.#digestNews(news),
        digestsVoid: () => this.#digestsVoid(),
      });
      this.#lostAt = undefined;
      this.#register(this.#session);
    } finally {
      this.#wakeUp();
    }
  }

  #register(session: SchedulerSession): void {
    const whole = this.#bulkBlocks() !== undefined || this.#request.needBackToSource === true;
    const demanded = [...this.#demands][0]?.range ?? { start: 0, end: this.task.geometry.contentLength };
    const small = !whole && !isMostOf(demanded, this.task.geometry.contentLength);
    this.#registered = small ? 'range' : 'whole';
    const range = small ? { start: demanded.start, length: lengthOf(demanded) } : undefined;
    session.register({ request: this.#request, range });
  }

  /** No scheduler can be asked: static seeds if there are any, else the origin. */
  #withoutScheduler(): void {
    this.#setDigestsExpected(false);
    const seeds = this.#request.needBackToSource === true ? [] : this.#env.options.staticSeeds;
    if (seeds.length === 0) {
      this.#allow('free');
      return;
    }
    this.#static = true;
    this.#parents.offer(
      seeds.map((address) => {
        const id = `static:${address.host}:${address.port}`;
        return { peerId: id, hostId: id, seed: true, address };
      }),
    );
    if (this.#parents.size === 0) this.#allow('free');
  }

  #sessionLost(error: PantalaError): void {
    this.#session = undefined;
    if (this.#closed || this.#finishing) return;
    this.#logger.debug('the scheduler is lost', { reason: error.message });
    this.#lostAt = monotonicNow();
    this.#wakeUp();
  }

  /** Registers again with a scheduler that came back, or does without after a while. */
  #reviveSession(now: number): void {
    const { schedulers } = this.#env;
    if (schedulers.linkOf(this.task.description.id) !== undefined) {
      this.#lostAt = undefined;
      this.#joining = this.#joinOnce();
    } else if (now - (this.#lostAt ?? now) > SCHEDULER_GRACE && this.#backToSource === 'waiting') {
      this.#withoutScheduler();
    }
  }

  #allow(state: 'granted' | 'free'): void {
    this.#backToSource = this.#request.disableBackToSource === true ? 'never' : state;
    if (this.#backToSource === 'never' && this.#parents.size === 0) {
      this.#failDemands(
        new PantalaError('unavailable', 'no peer has the content, and the request forbids to ask its origin', {
          details: { task: this.task.description.id },
        }),
      );
    }
    this.#wakeUp();
  }

  #parentLost(candidate: Candidate, error: PantalaError, bad: boolean): void {
    this.#logger.info('parent lost', { parent: candidate.hostId, reason: error.message });
    if (bad) this.#env.metrics.badParents.add();
    if (this.#session !== undefined) this.#session.reschedule([candidate.peerId], error.message);
    else if (this.#parents.size === 0) this.#allow('free');
    this.#wakeUp();
  }

  // Digests.

  #setDigestsExpected(expected: boolean): void {
    this.#intake.digestsExpected = expected;
    this.#selection.needDigests(expected);
  }

  #digestNews(news: Received<typeof pantalaV1.DigestNewsSchema>): void {
    this.#intake.digestNews(news);
    const { geometry } = this.task;
    const { verification } = this.#intake;
    for (const { number } of news.pieces) {
      if (number >= geometry.pieceCount) continue;
      const run = geometry.pieceBlocks(number);
      if (verification.canJudge(run)) this.#selection.checkable(run);
    }
    for (const { run } of news.blocks) {
      if (run === undefined || run.count === 0 || run.first + run.count > geometry.blockCount) continue;
      if (verification.canJudge(run)) this.#selection.checkable(run);
    }
    this.#wakeUp();
  }

  #digestsVoid(): void {
    this.#intake.forget();
    this.#selection.nothingCheckable();
    for (const run of [...this.task.provisional.runs(true)]) this.#selection.drop(run);
    this.task.discardProvisional();
    this.#wakeUp();
  }

  #sendReports(): void {
    this.#reportTimer = undefined;
    if (this.#digests.empty) return;
    const reports = this.#digests.take(this.peerId);
    for (const value of reports) this.#session?.link.send({ case: 'reportDigests', value });
  }

  // Blocks come in.

  async #storeFromOrigin(run: BlockRun, data: Buffer): Promise<void> {
    const digests = await this.#intake.fromOrigin(run, data);
    this.traffic.originBytes += data.length;
    this.#env.metrics.traffic.add(data.length, { type: 'BACK_TO_SOURCE' });
    this.#digests.add(run, digests);
    if (!this.#closed) this.#reportTimer ??= setTimeout(() => this.#sendReports(), REPORT_DELAY);
  }

  #storedFromParent(parent: string, run: BlockRun, bytes: number): void {
    this.traffic.peerBytes += bytes;
    this.#env.metrics.traffic.add(bytes, { type: 'REMOTE_PEER' });
    const piece = this.task.geometry.pieceOfBlock(run.first);
    this.#pieceParents.set(piece, parent);
    this.#selection.held(run);
    this.#progress(run);
  }

  #storeChanged(event: StoreEvent): void {
    if (event.kind === 'void') {
      this.#selection.reset();
      if (!this.#finishing) this.#failDemands(new PantalaError('data-loss', 'the content was removed meanwhile'));
      return;
    }
    if (event.kind === 'blocks') {
      this.#selection.held(event.run);
      this.#progress(event.run);
    }
    for (const demand of this.#demands) {
      if (this.task.availableFrom(demand.position) > demand.position) demand.wake();
    }
    this.#wakeUp();
  }

  #progress(run: BlockRun): void {
    const { geometry, blocks, provisional } = this.task;
    const piece = geometry.pieceOfBlock(run.first);
    if (!this.#reportedPieces.has(piece) && blocks.hasAll(geometry.pieceBlocks(piece))) {
      this.#reportedPieces.add(piece);
      this.#session?.pieceFinished(piece, this.#pieceParents.get(piece), monotonicNow() - this.startedAt);
      this.#pieceParents.delete(piece);
      this.#intake.verification.forgetPiece(piece);
    }
    const digest = this.#contentDigest();
    const prefix = this.#selection.heldPrefix();
    if (digest !== undefined && prefix > 0) {
      this.#job ??= this.#env.wholeDigests.begin(this.task, digest);
      this.#job.extend(geometry.blockRange(prefix - 1).end);
    }
    if (blocks.count + provisional.count === geometry.blockCount) void this.#finish();
  }

  #contentDigest(): ContentDigest | undefined {
    const { digest } = this.task.description;
    return digest === undefined ? undefined : parseContentDigest(digest);
  }

  /** Everything is on disk: check the whole where its digest is known, and tell everybody. */
  async #finish(): Promise<void> {
    if (this.#finishing || this.#closed) return;
    this.#finishing = true;
    this.#setTimer(false);
    try {
      if (this.#job !== undefined && (await this.#job.hex) !== this.#contentDigest()?.hex) {
        await this.#mismatch();
        return;
      }
      await this.task.promote();
      this.#prefetching = false;
      this.#sendReports();
      this.#session?.finished();
      this.#env.metrics.taskDuration.observe(monotonicNow() - this.startedAt);
      this.#listener.completed(this);
    } catch (error) {
      this.#fail(PantalaError.from(error));
    } finally {
      this.#finishing = false;
      this.#job?.[Symbol.dispose]();
      this.#job = undefined;
      this.#wakeUp();
    }
  }

  /** The whole is not what its name promises: nothing of it can be trusted, whoever gave it. */
  async #mismatch(): Promise<void> {
    const { id, url } = this.task.description;
    this.#logger.warn('the content does not have its digest', { url });
    this.#session?.wholeDigestMismatch();
    this.#intake.forget();
    this.#selection.nothingCheckable();
    this.#reportedPieces = new Set();
    const fromPeers = this.traffic.peerBytes > 0;
    await this.#env.store.void(id);
    this.#selection.reset();
    if (fromPeers && this.#restarts < MAX_RESTARTS && this.#request.disableBackToSource !== true) {
      this.#restarts++;
      this.#parents.offer([]);
      this.#allow('free');
      return;
    }
    this.#fail(new PantalaError('data-loss', `the content of ${url} does not have the digest sha256:${id}`));
  }

  // Failures.

  #credentials(): { readonly url: string; readonly headers: Readonly<Record<string, string>> } {
    return this.#originRequest(this.#request);
  }

  readonly #requests = new WeakMap<DownloadRequest, { url: string; headers: Readonly<Record<string, string>> }>();

  /** The same object for the same credentials, so that a fetch can tell whether there are newer ones. */
  #originRequest(request: DownloadRequest): {
    readonly url: string;
    readonly headers: Readonly<Record<string, string>>;
  } {
    const known = this.#requests.get(request);
    if (known !== undefined) return known;
    const made = { url: request.url, headers: request.requestHeaders };
    this.#requests.set(request, made);
    return made;
  }

  #originEnded(error: PantalaError | undefined): void {
    if (error === undefined || error.code === 'cancelled') this.#wakeUp();
    else this.#fail(error);
  }

  /** Readers cannot be served: each learns why. Who asks again begins anew. */
  #fail(error: PantalaError): void {
    if (this.#closed) return;
    this.#logger.warn('download failed', { reason: error.message, code: error.code });
    this.#env.metrics.failedTasks.add();
    this.#prefetching = false;
    this.#failDemands(error);
  }

  #failDemands(error: PantalaError): void {
    for (const demand of this.#demands) demand.fail(error);
  }

  async #fetchForChild(run: BlockRun, signal: AbortSignal): Promise<void> {
    if (this.#backToSource === 'waiting') this.#backToSource = 'granted';
    this.#joining ??= this.#joinOnce();
    const range = this.task.geometry.runRange(run);
    const demand = new Demand(range, false, monotonicNow());
    this.#demands.add(demand);
    try {
      while (!this.task.blocks.hasAll(run)) {
        throwIfAborted(signal);
        for (const gap of [...this.#selection.missing(run)]) this.#origin.fetch(gap);
        const first = this.task.blocks.next(false, run.first);
        demand.advance(this.task.geometry.blockRange(first).start, monotonicNow());
        await demand.wait(signal);
      }
    } finally {
      this.#demands.delete(demand);
    }
  }
}
