import { type Received, pantalaV1 as wire } from '@pantala/api';
import {
  type BlockRun,
  type ByteRange,
  type Logger,
  lengthOf,
  monotonicNow,
  PantalaError,
  peerId,
  throwIfAborted,
} from '@pantala/base';
import type { StoredTask, StoreEvent } from '@pantala/store';
import { type DownloadRequest, URGENT_LENGTH } from './contract.ts';
import { CallerCredentials, type Credentials } from './credentials.ts';
import { type Demand, Demands, isMostOf } from './demand.ts';
import type { Environment } from './environment.ts';
import { Hedge } from './hedge.ts';
import { Intake } from './intake.ts';
import { Membership } from './membership.ts';
import { OriginSource } from './origin-source.ts';
import { ParentSet, type Sign } from './parent-set.ts';
import { Prefetch } from './prefetch.ts';
import type { Announcement } from './schedulers/announcement.ts';
import type { Candidate } from './schedulers/session.ts';
import { Selection } from './selection/selection.ts';
import { Traffic } from './traffic.ts';
import { digestBlocks } from './verification.ts';
import { WholeCheck } from './whole-check.ts';

/** Milliseconds between two looks at whether somebody waits in vain. */
const TICK = 100;
/** Blocks that a static seed is asked to fetch ahead: 8 MiB. */
const STATIC_AHEAD = 512;
/** Milliseconds that a reader waits for the scheduler's first answer before it goes to the origin by itself. */
const ANSWER_TIMEOUT = 400;
/** Times that a content whose whole digest was wrong is fetched anew, from the origin alone. */
const MAX_RESTARTS = 1;

/** What was learnt, and begun, when the origin was asked what the content is. */
export interface OriginFacts {
  /** Whether it answers ranges. */
  readonly ranges: boolean;
  /** The download's stream to its scheduler, opened meanwhile. */
  readonly announcement?: Announcement;
}

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
  readonly #membership: Membership;
  readonly #hedge: Hedge;
  readonly #check: WholeCheck;
  readonly #subscription: Disposable;
  readonly #stop = new AbortController();
  readonly #demands: Demands;
  readonly #credentials: CallerCredentials;
  readonly #prefetch: Prefetch;
  readonly #fetchedForOthers = new Set<Promise<void>>();
  readonly #reportedPieces = new Set<number>();
  readonly #pieceParents = new Map<number, string>();
  readonly peerId: string;
  #request: DownloadRequest;
  #prefetching = false;
  #timer: NodeJS.Timeout | undefined;
  #pumping = false;
  #finishing = false;
  #verified = false;
  #closed = false;
  #restarts = 0;
  /** Why the last readers got nothing. */
  #failure: PantalaError | undefined;

  constructor(
    env: Environment,
    task: StoredTask,
    request: DownloadRequest,
    origin: OriginFacts,
    listener: ConductorListener,
  ) {
    this.#env = env;
    this.task = task;
    this.#request = request;
    this.#credentials = new CallerCredentials(credentialsOf(request));
    this.#listener = listener;
    this.peerId = peerId(env.options.host);
    this.#logger = env.logger.child({ task: task.description.id });
    this.#selection = new Selection(task.geometry, { host: env.options.hostId });
    this.#demands = new Demands(task.geometry);
    this.#prefetch = new Prefetch(task.geometry, env.prefetchLimiter, this.#stop.signal, () => this.#wakeUp());
    this.#hedge = new Hedge(task);
    this.#check = new WholeCheck(task, env.wholeDigests);
    this.#intake = new Intake(task, {
      storedFromParent: (parent, run, bytes) => this.#storedFromParent(parent, run, bytes),
      wrongBlocks: (parent) => this.#membership.badParent(parent),
      listWanted: (parent, run) => this.#parents.fetchList(parent, run),
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
      refused: (candidates) => this.#membership.refuse(candidates),
      lost: (candidate, error, bad) => this.#parentLost(candidate, error, bad),
      storeFailed: (error) => this.#fail(error),
    });
    this.#origin = new OriginSource({
      geometry: task.geometry,
      origin: env.origin,
      ranges: origin.ranges,
      selection: this.#selection,
      credentials: this.#credentials,
      store: (run, data) => this.#storeFromOrigin(run, data),
      ended: (error) => this.#originEnded(error),
      signal: this.#stop.signal,
    });
    this.#membership = new Membership({
      env,
      task,
      peerId: this.peerId,
      logger: this.#logger,
      announcement: origin.announcement,
      request: () => this.#request,
      wanted: () => this.#wanted(),
      parentsOffered: (candidates) => this.#parents.offer(candidates),
      digestsExpected: (expected) => {
        this.#intake.digestsExpected = expected;
        this.#selection.needDigests(expected);
      },
      digestNews: (news) => this.#digestNews(news),
      digestsVoid: () => this.#digestsVoid(),
      changed: () => this.#wakeUp(),
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

  /** Everything is held, and whether it is what its name promises is not known yet. */
  get verifying(): boolean {
    const { description, blocks, provisional, geometry } = this.task;
    if (description.digest === undefined || this.#verified) return false;
    return blocks.count + provisional.count === geometry.blockCount;
  }

  /** Whether the origin is being asked at this moment. */
  get asksOrigin(): boolean {
    return this.#origin.busy;
  }

  /** Another request for the same task: its credentials are the newest now. */
  join(request: DownloadRequest): void {
    const { needBackToSource = false, disableBackToSource = false } = this.#request;
    this.#request = {
      ...request,
      needBackToSource: needBackToSource || request.needBackToSource === true,
      disableBackToSource: disableBackToSource && request.disableBackToSource === true,
    };
    this.#credentials.add(credentialsOf(request));
  }

  /** Fetches the rest of the task without a reader. */
  prefetch(): void {
    if (this.#prefetching || this.task.complete) return;
    this.#prefetching = true;
    this.#wakeUp();
  }

  /**
   * Yields a range as its bytes come into the store, in order. The content's last block waits for the check of the
   * whole: who has read everything must not take wrong bytes for right ones.
   *
   * @throws the reason when they cannot be had
   */
  async *extents(range: ByteRange, signal: AbortSignal): AsyncGenerator<ByteRange> {
    const bulk = lengthOf(range) > URGENT_LENGTH && isMostOf(range, this.task.geometry.contentLength);
    using demand = this.#demands.add(range, bulk, monotonicNow());
    this.#failure = undefined;
    try {
      while (demand.position < range.end) {
        throwIfAborted(signal);
        demand.throwIfSpoiled();
        const end = Math.min(range.end, this.#readableFrom(demand.position));
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
      this.#wakeUp();
    }
  }

  /** End of what may be read from an offset on. */
  #readableFrom(offset: number): number {
    const available = this.task.availableFrom(offset);
    const { geometry } = this.task;
    return this.verifying ? Math.min(available, geometry.blockRange(geometry.blockCount - 1).start) : available;
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
    this.#subscription[Symbol.dispose]();
    this.#stop.abort(new PantalaError('cancelled', 'the download was stopped'));
    this.#demands.fail(new PantalaError('cancelled', 'the download was stopped'));
    this.#check[Symbol.dispose]();
    await this.#parents[Symbol.asyncDispose]();
    await this.#origin.settled();
    // Who holds a part is of use to others even so.
    if (this.#failure !== undefined && this.task.blocks.count === 0) this.#membership.failed(this.#failure.message);
    await this.#membership[Symbol.asyncDispose]();
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
    this.#membership.join();
    const now = monotonicNow();
    this.#selection.piecesHelpReaders(this.task.description.digest === undefined || !this.#mayEverAsk());
    const urgent = [...this.#demands.urgentBlocks()];
    const bulk = this.#demands.bulkBlocks() ?? this.#prefetchBlocks();
    for (const request of this.#selection.next(urgent, bulk, now)) this.#parents.ask(request);
    for (const run of urgent) this.#serveUnoffered(run, now);
    if (bulk !== undefined) this.#fetchBulk(bulk);
    for (const demand of this.#demands) {
      // What is provisional becomes visible with the whole alone.
      if (this.#isProvisional(demand)) this.prefetch();
      this.#hedgeFor(demand, now);
    }
    this.#failHopeless();
  }

  /** What of a prefetch may be asked for now. */
  #prefetchBlocks(): BlockRun | undefined {
    if (!this.#prefetching) return undefined;
    return this.#prefetch.allowed((wanted) => this.#selection.missing(wanted));
  }

  /** Everything that is wanted in bulk. */
  #bulkBlocks(): BlockRun | undefined {
    return this.#prefetching ? { first: 0, count: this.task.geometry.blockCount } : this.#demands.bulkBlocks();
  }

  #wanted(): { readonly bulk: boolean; readonly range: ByteRange } {
    const bulk = this.#bulkBlocks() !== undefined;
    return { bulk, range: this.#demands.first?.range ?? { start: 0, end: this.task.geometry.contentLength } };
  }

  /** Urgent blocks that no parent holds: a seed fetches them, or we do. */
  #serveUnoffered(run: BlockRun, now: number): void {
    // Nobody came within a short time: neither a seed nor leave to ask the origin.
    const late = this.#mayEverAsk() && this.#membership.waited(now) > ANSWER_TIMEOUT && !this.#parents.hasSeed;
    for (const gap of this.#selection.missing(run)) {
      // A parent has it, but its digest is still to come.
      const offered = this.#parents.size > 0 && this.#selection.isOffered(gap.first);
      if (offered && this.#membership.backToSource !== 'free') continue;
      if (this.#parents.fetchMissing(gap)) continue;
      if (!this.#mayAskOrigin() && !late) continue;
      if (late) this.#doubtSilent();
      this.#origin.fetch(gap);
    }
  }

  #fetchBulk(bulk: BlockRun): void {
    if (this.#mayAskOrigin()) {
      this.#origin.stream(bulk);
      return;
    }
    this.#origin.stopStream();
    // Nobody told a static seed that everything is wanted: it fetches what it is asked for, a window at a time.
    if (!this.#membership.static || this.#parents.fetchingMissing) return;
    const [gap] = this.#selection.missing(bulk);
    if (gap !== undefined) {
      this.#parents.fetchMissing({ first: gap.first, count: Math.min(gap.count, STATIC_AHEAD) });
    }
  }

  #isProvisional({ position, range }: Demand): boolean {
    return position < range.end && this.task.provisional.has(this.task.geometry.blockAt(position));
  }

  #mayEverAsk(): boolean {
    return this.#request.disableBackToSource !== true;
  }

  #mayAskOrigin(): boolean {
    return this.#mayEverAsk() && this.#membership.backToSource !== 'waiting';
  }

  /** Asks the origin as well for what a reader waits for from a parent that is silent. */
  #hedgeFor(demand: Demand, now: number): void {
    if (!this.#mayEverAsk() || this.#origin.busy) return;
    const run = this.#hedge.due(demand, now, (block) => this.#signAbout(block));
    if (run === undefined) return;
    this.#doubtSilent();
    const bytes = lengthOf(this.task.geometry.runRange(run));
    this.#env.metrics.hedged.add(bytes);
    this.#logger.info('parents are silent; the origin is asked as well', { first: run.first, bytes });
    this.#origin.fetch(run);
  }

  /** A scheduler that has answered is heard of as long as it has nobody to offer. */
  #signAbout(block: number): Sign {
    const sign = this.#parents.signAbout(block);
    return this.#parents.size === 0 ? { ...sign, heard: this.#membership.answered } : sign;
  }

  /** A reader has lost a time-out to parts that never answered; the next one must not lose it again. */
  #doubtSilent(): void {
    this.#parents.doubtSilent();
    this.#membership.doubtSilent();
  }

  /** Nobody is left to ask, and the origin must not be. */
  #failHopeless(): void {
    if (this.#mayEverAsk() || this.#membership.backToSource === 'waiting' || this.#parents.size > 0) return;
    this.#fail(new PantalaError('unavailable', 'no peer has the content, and the request forbids to ask its origin'));
  }

  #setTimer(on: boolean): void {
    if (on && this.#timer === undefined) this.#timer = setInterval(() => this.#tick(), TICK);
    if (on) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #tick(): void {
    this.#membership.tick(monotonicNow());
    this.#pump();
  }

  #parentLost(candidate: Candidate, error: PantalaError, bad: boolean): void {
    this.#logger.info('parent lost', { parent: candidate.hostId, reason: error.message });
    if (bad) this.#env.metrics.badParents.add();
    this.#membership.parentLost(candidate, error);
    this.#wakeUp();
  }

  // Digests.

  #digestNews(news: Received<typeof wire.DigestNewsSchema>): void {
    this.#intake.digestNews(news);
    const { geometry } = this.task;
    const { verification } = this.#intake;
    const provable = this.task.description.digest !== undefined;
    // A second fetch that agrees is what confirms digests of content that cannot be checked as a whole.
    if (news.authority === wire.Authority.UNCONFIRMED && !provable) this.#membership.allow('granted');
    for (const { number } of news.pieces) {
      if (number >= geometry.pieceCount) continue;
      if (verification.canJudge(geometry.pieceBlocks(number))) this.#selection.listable(number);
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
    for (const run of this.task.provisional.runs(true)) this.#selection.drop(run);
    this.task.discardProvisional();
    this.#wakeUp();
  }

  // Blocks come in.

  async #storeFromOrigin(run: BlockRun, data: Buffer): Promise<void> {
    const digests = digestBlocks(this.task.geometry, run, data);
    // A child that waits for these blocks needs the scheduler's word as soon as the bytes.
    this.#membership.fixed(run, digests, !this.#origin.streaming);
    await this.task.write(run, data, digests, 'checked');
    this.#membership.stored(run);
    this.traffic.originBytes += data.length;
    this.#env.metrics.traffic.add(data.length, { type: 'BACK_TO_SOURCE' });
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
      if (!this.#finishing) this.#demands.fail(new PantalaError('data-loss', 'the content was removed meanwhile'));
      return;
    }
    if (event.kind === 'blocks') {
      this.#selection.held(event.run);
      this.#progress(event.run);
    }
    this.#demands.wake((offset) => this.task.availableFrom(offset));
    this.#wakeUp();
  }

  #progress(run: BlockRun): void {
    const { geometry, blocks, provisional } = this.task;
    const piece = geometry.pieceOfBlock(run.first);
    if (!this.#reportedPieces.has(piece) && blocks.hasAll(geometry.pieceBlocks(piece))) {
      this.#reportedPieces.add(piece);
      this.#membership.pieceFinished(piece, this.#pieceParents.get(piece), monotonicNow() - this.startedAt);
      this.#pieceParents.delete(piece);
      this.#intake.verification.forgetPiece(piece);
    }
    this.#check.extend(this.#selection.heldPrefix());
    if (blocks.count + provisional.count === geometry.blockCount) void this.#finish();
  }

  /** Everything is on disk: check the whole where its digest is known, and tell everybody. */
  async #finish(): Promise<void> {
    if (this.#finishing || this.#closed) return;
    this.#finishing = true;
    this.#setTimer(false);
    try {
      if (!(await this.#check.holds())) {
        await this.#mismatch();
        return;
      }
      await this.task.promote();
      this.#verified = true;
      this.#demands.wake((offset) => this.task.availableFrom(offset));
      this.#prefetching = false;
      this.#membership.finished();
      this.#env.metrics.taskDuration.observe(monotonicNow() - this.startedAt);
      this.#listener.completed(this);
    } catch (error) {
      this.#fail(PantalaError.from(error));
    } finally {
      this.#finishing = false;
      this.#check[Symbol.dispose]();
      this.#wakeUp();
    }
  }

  /** The whole is not what its name promises: nothing of it can be trusted, whoever gave it. */
  async #mismatch(): Promise<void> {
    const { id, url } = this.task.description;
    this.#logger.warn('the content does not have its digest', { url });
    this.#membership.wholeDigestMismatch();
    this.#intake.forget();
    this.#selection.nothingCheckable();
    this.#reportedPieces.clear();
    const wrong = new PantalaError('data-loss', `the content of ${url} does not have the digest sha256:${id}`);
    const fromPeers = this.traffic.peerBytes > 0;
    // Nobody has seen what is provisional: without it, readers may go on with what came from the origin.
    if (this.task.provisional.count > 0 && this.#restarts < MAX_RESTARTS && this.#mayEverAsk()) {
      this.#restarts++;
      for (const run of this.task.provisional.runs(true)) this.#selection.drop(run);
      this.task.discardProvisional();
      this.#parents.offer([]);
      this.#membership.allow('free');
      return;
    }
    this.#demands.spoil(wrong);
    await this.#env.store.void(id);
    this.#selection.reset();
    if (fromPeers && this.#restarts < MAX_RESTARTS && this.#mayEverAsk()) {
      this.#restarts++;
      this.#parents.offer([]);
      this.#membership.allow('free');
      return;
    }
    this.#fail(wrong);
  }

  // Failures.

  #originEnded(error: PantalaError | undefined): void {
    if (error === undefined || error.code === 'cancelled') {
      this.#wakeUp();
      return;
    }
    this.#fail(error);
    if (isAnotherContent(error)) void this.#forgetTask();
  }

  /** The origin has something of another length now, or lied about it before: the next request begins anew. */
  async #forgetTask(): Promise<void> {
    const { id } = this.task.description;
    try {
      if (this.#env.store.get(id) === this.task) await this.#env.store.remove(id);
    } catch (error) {
      this.#logger.warn('the task could not be removed', { reason: String(error) });
    }
  }

  /** Readers cannot be served: each learns why. Who asks again begins anew. */
  #fail(error: PantalaError): void {
    if (this.#closed) return;
    this.#logger.warn('download failed', { reason: error.message, code: error.code });
    this.#env.metrics.failedTasks.add();
    this.#failure = error;
    this.#prefetching = false;
    this.#demands.fail(error);
  }

  async #fetchForChild(run: BlockRun, signal: AbortSignal): Promise<void> {
    const range = this.task.geometry.runRange(run);
    using demand = this.#demands.add(range, false, monotonicNow());
    while (!this.task.blocks.hasAll(run)) {
      throwIfAborted(signal);
      for (const gap of this.#selection.missing(run)) this.#origin.fetch(gap);
      const first = this.task.blocks.next(false, run.first);
      demand.advance(this.task.geometry.blockRange(first).start, monotonicNow());
      await demand.wait(signal);
    }
  }
}

/** An answer that does not fit what the task is known to be: another length, or no such range. */
function isAnotherContent({ code, details }: PantalaError): boolean {
  return details.changed === true || (code === 'origin' && (details.status === undefined || details.status === 416));
}

function credentialsOf({ url, requestHeaders }: DownloadRequest): Credentials {
  return { url, headers: requestHeaders };
}
