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
import type { OriginBody } from '@pantala/transfer';
import { Completion } from './completion.ts';
import { type DownloadRequest, URGENT_LENGTH } from './contract.ts';
import { CallerCredentials, type Credentials } from './credentials.ts';
import { Demands, isMostOf } from './demand.ts';
import type { Environment } from './environment.ts';
import { Intake } from './intake.ts';
import { Membership } from './membership.ts';
import { OriginSource } from './origin-source.ts';
import { ParentSet } from './parent-set.ts';
import type { Announcement } from './schedulers/announcement.ts';
import type { Candidate } from './schedulers/session.ts';
import { Selection } from './selection/selection.ts';
import { Sourcing } from './sourcing.ts';
import { Traffic } from './traffic.ts';
import { digestBlocks } from './verification.ts';

/** What was learnt, and begun, when the origin was asked what the content is. */
export interface OriginFacts {
  /** Whether it answers ranges. */
  readonly ranges: boolean;
  /** The download's stream to its scheduler, opened meanwhile. */
  readonly announcement?: Announcement;
  /** Bytes that the origin sends already. */
  readonly body?: OriginBody;
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
  readonly #logger: Logger;
  readonly #selection: Selection;
  readonly #intake: Intake;
  readonly #parents: ParentSet;
  readonly #origin: OriginSource;
  readonly #membership: Membership;
  readonly #sourcing: Sourcing;
  readonly #completion: Completion;
  readonly #subscription: Disposable;
  readonly #stop = new AbortController();
  readonly #demands: Demands;
  readonly #credentials: CallerCredentials;
  readonly #fetchedForOthers = new Set<Promise<void>>();
  readonly #reportedPieces = new Set<number>();
  readonly #pieceParents = new Map<number, string>();
  readonly peerId: string;
  #request: DownloadRequest;
  #closed = false;
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
    this.peerId = peerId(env.options.host);
    this.#logger = env.logger.child({ task: task.description.id });
    this.#selection = new Selection(task.geometry, { host: env.options.hostId });
    this.#demands = new Demands(task.geometry);
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
      bulk: () => this.#sourcing.bulkBlocks() !== undefined,
      changed: () => this.#sourcing.wakeUp(),
      refused: (candidates) => this.#membership.refuse(candidates),
      lost: (candidate, error, bad) => this.#parentLost(candidate, error, bad),
      storeFailed: (error) => this.#fail(error),
    });
    this.#origin = new OriginSource({
      geometry: task.geometry,
      origin: env.origin,
      ranges: origin.ranges,
      begun: origin.body,
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
      wanted: () => this.#sourcing.wanted(),
      parentsOffered: (candidates) => this.#parents.offer(candidates),
      digestsExpected: (expected) => {
        this.#intake.digestsExpected = expected;
        this.#selection.needDigests(expected);
      },
      digestNews: (news) => this.#digestNews(news),
      digestsVoid: () => this.#digestsVoid(),
      changed: () => this.#sourcing.wakeUp(),
    });
    const parts = {
      env,
      task,
      logger: this.#logger,
      selection: this.#selection,
      demands: this.#demands,
      parents: this.#parents,
      membership: this.#membership,
      failed: (error: PantalaError) => this.#fail(error),
    };
    this.#sourcing = new Sourcing({
      ...parts,
      origin: this.#origin,
      signal: this.#stop.signal,
      request: () => this.#request,
      resting: () => this.#closed || this.#completion.checking,
    });
    this.#completion = new Completion({
      ...parts,
      intake: this.#intake,
      traffic: this.traffic,
      startedAt: this.startedAt,
      mayEverAsk: () => this.#sourcing.mayEverAsk,
      settled: () => this.#sourcing.wakeUp(),
      completed: () => {
        this.#sourcing.stopPrefetch();
        listener.completed(this);
      },
      restarted: () => this.#reportedPieces.clear(),
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
    if (this.#demands.size > 0 || this.#fetchedForOthers.size > 0) return false;
    return !this.#sourcing.prefetching && !this.#completion.checking;
  }

  /** Everything is held, and whether it is what its name promises is not known yet. */
  get verifying(): boolean {
    return this.#completion.pending;
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
    this.#sourcing.prefetch();
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
          if (!this.task.complete) this.#sourcing.wakeUp();
          yield part;
          demand.waitingSince = monotonicNow();
          continue;
        }
        if (this.#closed) throw new PantalaError('cancelled', 'the download was stopped');
        const woken = demand.wait(signal);
        this.#sourcing.wakeUp();
        await woken;
      }
    } finally {
      this.#sourcing.wakeUp();
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
    this.#sourcing[Symbol.dispose]();
    this.#subscription[Symbol.dispose]();
    this.#stop.abort(new PantalaError('cancelled', 'the download was stopped'));
    this.#demands.fail(new PantalaError('cancelled', 'the download was stopped'));
    this.#completion[Symbol.dispose]();
    await this.#parents[Symbol.asyncDispose]();
    await this.#origin.settled();
    // Who holds a part is of use to others even so.
    if (this.#failure !== undefined && this.task.blocks.count === 0) this.#membership.failed(this.#failure.message);
    await this.#membership[Symbol.asyncDispose]();
    this.#env.metrics.runningTasks.add(-1);
  }

  #parentLost(candidate: Candidate, error: PantalaError, bad: boolean): void {
    this.#logger.info('parent lost', { parent: candidate.hostId, reason: error.message });
    if (bad) this.#env.metrics.badParents.add();
    this.#membership.parentLost(candidate, error);
    this.#sourcing.wakeUp();
  }

  // Digests.

  #digestNews(news: Received<typeof wire.DigestNewsSchema>): void {
    this.#intake.digestNews(news);
    const { geometry } = this.task;
    const { verification } = this.#intake;
    const provable = this.task.description.digest !== undefined;
    if (news.authority === wire.Authority.UNCONFIRMED && !provable) this.#sourcing.confirm();
    for (const { number } of news.pieces) {
      if (number >= geometry.pieceCount) continue;
      if (verification.canJudge(geometry.pieceBlocks(number))) this.#selection.listable(number);
    }
    for (const { run } of news.blocks) {
      if (run === undefined || run.count === 0 || run.first + run.count > geometry.blockCount) continue;
      if (verification.canJudge(run)) this.#selection.checkable(run);
    }
    this.#sourcing.wakeUp();
  }

  #digestsVoid(): void {
    this.#intake.forget();
    this.#selection.nothingCheckable();
    for (const run of this.task.provisional.runs(true)) this.#selection.drop(run);
    this.task.discardProvisional();
    this.#sourcing.wakeUp();
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
      if (!this.#completion.checking)
        this.#demands.fail(new PantalaError('data-loss', 'the content was removed meanwhile'));
      return;
    }
    if (event.kind === 'blocks') {
      this.#selection.held(event.run);
      this.#progress(event.run);
    }
    this.#demands.wake((offset) => this.task.availableFrom(offset));
    this.#sourcing.wakeUp();
  }

  #progress(run: BlockRun): void {
    const { geometry, blocks } = this.task;
    const piece = geometry.pieceOfBlock(run.first);
    if (!this.#reportedPieces.has(piece) && blocks.hasAll(geometry.pieceBlocks(piece))) {
      this.#reportedPieces.add(piece);
      this.#membership.pieceFinished(piece, this.#pieceParents.get(piece), monotonicNow() - this.startedAt);
      this.#pieceParents.delete(piece);
      this.#intake.verification.forgetPiece(piece);
    }
    if (!this.#closed) this.#completion.progress();
  }

  // Failures.

  #originEnded(error: PantalaError | undefined): void {
    if (error === undefined || error.code === 'cancelled') {
      this.#sourcing.wakeUp();
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
    this.#sourcing.stopPrefetch();
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
