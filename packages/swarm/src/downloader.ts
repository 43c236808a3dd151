import { tmpdir } from 'node:os';
import {
  BLOCK_LENGTH,
  type BlockRun,
  type ByteRange,
  blobDigestOfUrl,
  defaultPieceLength,
  type Geometry,
  hostId,
  type Logger,
  Lru,
  lengthOf,
  type Metrics,
  monotonicNow,
  PantalaError,
  type RateLimiter,
  SingleFlight,
  taskId as taskIdOf,
} from '@pantala/base';
import type { StoredTask, TaskDescription, TaskStore } from '@pantala/store';
import { type Origin, type OriginBody, ParentPool } from '@pantala/transfer';
import { Conductor, type OriginFacts } from './conductor.ts';
import {
  type DownloadRequest,
  type OpenTask,
  type Swarm,
  type TaskNewsEvent,
  type TaskWatcher,
  URGENT_LENGTH,
} from './contract.ts';
import type { Environment } from './environment.ts';
import { heldTask } from './held-tasks.ts';
import { swarmMetrics } from './metrics.ts';
import { TaskNewsBoard } from './news/task-news.ts';
import type { ServerAddress, SwarmOptions, SwarmOptionsGiven } from './options.ts';
import { spoolContent } from './origin-spool.ts';
import { ParentHosts } from './parents/parent-hosts.ts';
import { Announcement } from './schedulers/announcement.ts';
import type { HostFacts } from './schedulers/host-message.ts';
import type { SchedulerLink } from './schedulers/link.ts';
import { Schedulers } from './schedulers/schedulers.ts';
import { TaskDoneLog } from './task-done-log.ts';
import { TaskReader } from './task-reader.ts';
import { digestBlocks } from './verification.ts';
import { WholeDigests } from './whole-digest/whole-digest.ts';

export interface DownloaderDependencies {
  readonly store: TaskStore;
  readonly origin: Origin;
  /** Facts about the machine for AnnounceHost; a few that are always known otherwise. */
  readonly hostFacts?: () => HostFacts;
  /** Every byte from other peers is paid here. */
  readonly downloadLimiter?: RateLimiter;
  /** What is fetched although nobody waits for it is paid here, on top. */
  readonly prefetchLimiter?: RateLimiter;
  /** Bytes a second from one peer. */
  readonly downloadRatePerPeer?: number;
  readonly logger: Logger;
  readonly metrics: Metrics;
}

/** A task that is new here. */
interface CreatedTask {
  readonly task: StoredTask;
  readonly origin: OriginFacts;
}

/** Upstream's interval of AnnounceHost is five minutes; ten seconds notice a lost scheduler ten times sooner. */
const DEFAULT_ANNOUNCE_INTERVAL = 30_000;
/** Milliseconds without a reader after which a download of a part is over. */
const SILENCE = 5000;
/** Milliseconds between two looks for downloads that are over. */
const SWEEP_INTERVAL = 1000;

/** URLs whose task ids are remembered: with the longest of 8 KiB, 8 MiB. */
const MAX_KNOWN_IDS = 1024;

/** Everything that is downloaded by this process, each task once whoever asks for it. */
export function createDownloader(given: SwarmOptionsGiven, deps: DownloaderDependencies): Swarm {
  return new Downloads(compile(given), deps);
}

function compile(given: SwarmOptionsGiven): SwarmOptions {
  return {
    host: given.host,
    hostId: hostId(given.host),
    schedulers: given.schedulers ?? [],
    staticSeeds: given.staticSeeds ?? [],
    announceInterval: given.announceInterval ?? DEFAULT_ANNOUNCE_INTERVAL,
    spoolDirectory: given.spoolDirectory ?? tmpdir(),
    verbose: given.verbose ?? false,
    schedulerTls: given.schedulerTls,
    peerTls: given.peerTls,
  };
}

class Downloads implements Swarm {
  readonly #env: Environment;
  readonly #parents: ParentPool;
  readonly #conductors = new Map<string, Conductor>();
  readonly #idleSince = new Map<Conductor, number>();
  readonly #prefetched = new Set<Conductor>();
  /** Bytes that origins send already, for downloads that begin at once. */
  readonly #begun = new Map<string, { readonly body: OriginBody; readonly at: number }>();
  readonly #ids = new Lru<string, string>(MAX_KNOWN_IDS);
  readonly #boards = new Map<string, TaskNewsBoard>();
  readonly #creating = new SingleFlight<string, CreatedTask>();
  readonly #done: TaskDoneLog;
  readonly #sweeper: NodeJS.Timeout;
  readonly #closing = new Set<Promise<void>>();
  #closed = false;

  constructor(options: SwarmOptions, deps: DownloaderDependencies) {
    const { store, origin, logger, downloadLimiter, downloadRatePerPeer: connectionRate, hostFacts } = deps;
    this.#parents = new ParentPool(connectionRate === undefined ? {} : { connectionRate }, {
      logger,
      ...(downloadLimiter === undefined ? {} : { downloadLimiter }),
    });
    this.#env = {
      options,
      store,
      origin,
      logger,
      metrics: swarmMetrics(deps.metrics),
      prefetchLimiter: deps.prefetchLimiter,
      hosts: new ParentHosts(options, this.#parents, downloadLimiter),
      wholeDigests: new WholeDigests(),
      schedulers: new Schedulers({
        options,
        logger,
        heldTasks: () => this.#heldTasks(),
        hostFacts: hostFacts ?? (() => ({})),
      }),
    };
    this.#done = new TaskDoneLog(logger, options.host.ip, options.verbose);
    this.#sweeper = setInterval(() => this.#sweep(), SWEEP_INTERVAL);
    this.#sweeper.unref();
  }

  async open(
    request: DownloadRequest,
    { signal, range, whole }: { readonly signal: AbortSignal; readonly range?: ByteRange; readonly whole?: boolean },
  ): Promise<OpenTask> {
    if (this.#closed) throw new PantalaError('unavailable', 'the swarm has stopped');
    const openedAt = monotonicNow();
    const id = this.#idOf(request);
    let task = this.#env.store.get(id);
    let origin: OriginFacts = { ranges: true };
    if (task === undefined) {
      ({ task, origin } = await this.#creating.run(id, signal, (flight) =>
        this.#create(id, request, whole === true ? WHOLE : range, flight),
      ));
    }
    const { ranges } = origin;
    const hit = range === undefined ? task.complete : task.has(range);
    const conductor = task.complete ? undefined : this.#conductor(task, request, origin);
    if (conductor === undefined) origin.announcement?.[Symbol.dispose]();
    if (hit) this.#env.metrics.hits.add();
    else this.#done.asked(task, request, openedAt);
    // A range counted from the end is not known before the length is.
    const partly = range === undefined || lengthOf(range) < task.geometry.contentLength;
    if (conductor !== undefined && request.prefetch === true && partly) {
      this.#done.asked(task, { ...request, reader: 'prefetch' }, openedAt);
      this.#prefetch(conductor);
    }
    const running = () => this.#conductor(task, request, { ranges });
    const verifying = () => this.#conductors.get(id)?.verifying === true;
    return new TaskReader(task, request, hit, this.#env, running, verifying, conductor);
  }

  async fetchMissing(taskId: string, run: BlockRun, signal: AbortSignal): Promise<void> {
    const task = this.#env.store.get(taskId);
    if (task === undefined) throw new PantalaError('not-found', `task ${taskId} is not known here`);
    if (task.blocks.hasAll(run)) return;
    const conductor = this.#conductors.get(taskId);
    if (conductor === undefined) throw new PantalaError('not-found', `task ${taskId} was not opened here`);
    await conductor.fetchMissing(run, signal);
  }

  async *watch(taskId: string, watcher: TaskWatcher): AsyncGenerator<TaskNewsEvent> {
    const task = this.#env.store.get(taskId);
    if (task === undefined) throw new PantalaError('not-found', `task ${taskId} is not known here`);
    let board = this.#boards.get(taskId);
    if (board === undefined) {
      board = new TaskNewsBoard(
        task,
        this.#env.options.host.seed,
        () => this.#conductors.get(taskId)?.asksOrigin === true,
      );
      this.#boards.set(taskId, board);
    }
    try {
      yield* board.watch(watcher);
    } finally {
      if (board.watchers === 0 && this.#boards.get(taskId) === board) {
        this.#boards.delete(taskId);
        board[Symbol.dispose]();
      }
    }
  }

  setSchedulers(schedulers: readonly ServerAddress[]): void {
    this.#env.schedulers.set(schedulers);
  }

  changed(taskId: string): void {
    const task = this.#env.store.get(taskId);
    if (task === undefined) this.#done.forget(taskId);
    this.#env.schedulers.tellHeld([
      task === undefined ? { taskId, blockCount: 0 } : heldTask(task, this.#conductors.get(taskId)?.peerId),
    ]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    clearInterval(this.#sweeper);
    this.#dropBegun(Number.POSITIVE_INFINITY);
    for (const conductor of this.#conductors.values()) this.#close(conductor);
    await Promise.all(this.#closing);
    await this.#env.schedulers[Symbol.asyncDispose]();
    await this.#env.hosts[Symbol.asyncDispose]();
    await this.#parents[Symbol.asyncDispose]();
    await this.#env.wholeDigests[Symbol.asyncDispose]();
  }

  /** The id of a request's task. Most requests are for a URL and nothing else, the same one again and again. */
  #idOf(request: DownloadRequest): string {
    const { url, tag, application, contentForTaskId, pieceLength, filteredQueryParams } = request;
    const more = tag !== undefined || application !== undefined || contentForTaskId !== undefined;
    if (more || pieceLength !== undefined || filteredQueryParams !== undefined) return taskIdOf(request);
    const known = this.#ids.get(url);
    if (known !== undefined) return known;
    const id = taskIdOf(request);
    this.#ids.set(url, id);
    return id;
  }

  /** The download of a task, begun if there is none. */
  #conductor(task: StoredTask, request: DownloadRequest, origin: OriginFacts): Conductor {
    const { id } = task.description;
    const running = this.#conductors.get(id);
    if (running !== undefined && !running.closed && running.task === task) {
      running.join(request);
      return running;
    }
    const body = this.#begun.get(id)?.body;
    this.#begun.delete(id);
    const facts = body === undefined ? origin : { ...origin, body };
    const conductor = new Conductor(this.#env, task, request, facts, {
      completed: (completed) => this.#completed(completed),
    });
    this.#conductors.set(id, conductor);
    return conductor;
  }

  #prefetch(conductor: Conductor): void {
    if (!this.#prefetched.has(conductor)) this.#env.metrics.prefetches.add();
    this.#prefetched.add(conductor);
    conductor.prefetch();
  }

  #completed(conductor: Conductor): void {
    this.#done.completed(conductor.task, conductor.traffic);
    this.#close(conductor);
  }

  #close(conductor: Conductor): void {
    const { id } = conductor.task.description;
    if (this.#conductors.get(id) === conductor) this.#conductors.delete(id);
    this.#idleSince.delete(conductor);
    if (this.#prefetched.delete(conductor) && !conductor.task.complete && !this.#closed) {
      this.#env.metrics.failedPrefetches.add();
    }
    // It ends without having compared the whole with its digest: nobody may take it for compared.
    if (conductor.verifying) conductor.task.recheck();
    const closed = conductor[Symbol.asyncDispose]()
      .catch((error: unknown) => this.#env.logger.warn('ending a download failed', { task: id, reason: String(error) }))
      .finally(() => this.#closing.delete(closed));
    this.#closing.add(closed);
  }

  /** Ends downloads whose readers have been silent, and notes what was read of them. */
  #sweep(): void {
    const now = monotonicNow();
    this.#dropBegun(now - SWEEP_INTERVAL);
    for (const conductor of this.#conductors.values()) {
      if (!conductor.idle) {
        this.#idleSince.delete(conductor);
        continue;
      }
      const since = this.#idleSince.get(conductor) ?? now;
      this.#idleSince.set(conductor, since);
      if (now - since < SILENCE) continue;
      this.#done.silent(conductor.task, conductor.traffic, now - SILENCE);
      this.#close(conductor);
    }
  }

  /** Whoever asked went away before the download began. */
  #dropBegun(before: number): void {
    for (const [id, { body, at }] of this.#begun) {
      if (at > before) continue;
      this.#begun.delete(id);
      void body[Symbol.asyncDispose]();
    }
  }

  *#heldTasks() {
    for (const task of this.#env.store.tasks()) {
      if (task.blocks.count > 0) yield heldTask(task, this.#conductors.get(task.description.id)?.peerId);
    }
  }

  /**
   * Learns from the origin what the resource is, and creates its task.
   *
   * @param wanted what will be read first, where that is known
   */
  async #create(
    id: string,
    request: DownloadRequest,
    wanted: ByteRange | undefined,
    signal: AbortSignal,
  ): Promise<CreatedTask> {
    if (request.disableBackToSource === true && !this.#env.schedulers.configured) {
      throw new PantalaError('unavailable', 'there are no peers, and the request forbids to ask the origin');
    }
    const ask = { url: request.url, headers: request.requestHeaders, signal };
    const link = this.#env.schedulers.linkOf(id);
    const announcement = link === undefined || link.alone ? undefined : new Announcement(link);
    let body: OriginBody | undefined;
    try {
      const first = this.#nobodyElse(link) ? beginningOf(wanted) : undefined;
      const begun = first === undefined ? undefined : await this.#env.origin.begin({ ...ask, ...first });
      body = begun?.body;
      const stat = begun?.stat ?? (await this.#env.origin.stat(ask));
      if (stat.contentLength === undefined) {
        announcement?.[Symbol.dispose]();
        return { task: await this.#createSpooled(id, request, signal), origin: { ranges: false } };
      }
      const task = await this.#env.store.create(this.#describe(id, request, stat.contentLength, stat.headers));
      if (body !== undefined) this.#begun.set(id, { body, at: monotonicNow() });
      return { task, origin: { ranges: stat.acceptsRanges, ...(announcement === undefined ? {} : { announcement }) } };
    } catch (error) {
      await body?.[Symbol.asyncDispose]();
      announcement?.[Symbol.dispose]();
      throw error;
    }
  }

  /** Whether the origin alone can be asked, so that its first answer may as well bring bytes. */
  #nobodyElse(link: SchedulerLink | undefined): boolean {
    const { schedulers, options } = this.#env;
    return link === undefined ? !schedulers.configured && options.staticSeeds.length === 0 : link.alone;
  }

  #describe(
    id: string,
    request: DownloadRequest,
    contentLength: number,
    responseHeaders: Readonly<Record<string, string>>,
  ): TaskDescription {
    const blob = blobDigestOfUrl(request.url);
    // Only what the task's id vouches for: a caller's own digest is checked on what that caller gets, or one who names
    // a wrong digest would void what everybody else was given.
    const digest = blob === undefined ? undefined : `sha256:${blob}`;
    return {
      id,
      url: request.url,
      contentLength,
      pieceLength: request.pieceLength ?? defaultPieceLength(contentLength),
      responseHeaders,
      ...(digest === undefined ? {} : { digest }),
      ...(request.tag === undefined ? {} : { tag: request.tag }),
      ...(request.application === undefined ? {} : { application: request.application }),
    };
  }

  /** An origin that does not say how long its content is: all of it comes first. */
  async #createSpooled(id: string, request: DownloadRequest, signal: AbortSignal): Promise<StoredTask> {
    const { origin, options, store } = this.#env;
    const ask = { url: request.url, headers: request.requestHeaders, signal };
    const digest = blobDigestOfUrl(request.url);
    await using spooled = await spoolContent(origin, ask, options.spoolDirectory, digest);
    const task = await store.create(this.#describe(id, request, spooled.contentLength, spooled.headers));
    const { geometry } = task;
    for (const run of spoolRuns(geometry)) {
      const data = await spooled.read(geometry.runRange(run));
      await task.write(run, data, digestBlocks(geometry, run, data), 'checked');
    }
    await task.promote();
    return task;
  }
}

/** All of a content whose length is not known yet. */
const WHOLE: ByteRange = { start: 0, end: Number.POSITIVE_INFINITY };

/** What to ask for at once when `wanted` is what will be read: whole blocks of all of it, or of a small range. */
function beginningOf(wanted: ByteRange | undefined): { readonly range?: ByteRange } | undefined {
  if (wanted === undefined || wanted === WHOLE) return wanted && {};
  if (lengthOf(wanted) > URGENT_LENGTH) return undefined;
  const start = wanted.start - (wanted.start % BLOCK_LENGTH);
  return { range: { start, end: Math.ceil(wanted.end / BLOCK_LENGTH) * BLOCK_LENGTH } };
}

/** The blocks of a task in runs of at most a megabyte within one piece. */
function* spoolRuns(geometry: Geometry): Generator<BlockRun> {
  const longest = 64;
  for (let piece = 0; piece < geometry.pieceCount; piece++) {
    const blocks = geometry.pieceBlocks(piece);
    for (let first = blocks.first; first < blocks.first + blocks.count; first += longest) {
      yield { first, count: Math.min(longest, blocks.first + blocks.count - first) };
    }
  }
}
