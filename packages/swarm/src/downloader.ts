import { tmpdir } from 'node:os';
import {
  type BlockRun,
  type ByteRange,
  hostId,
  type Logger,
  Lru,
  lengthOf,
  type Metrics,
  monotonicNow,
  PantalaError,
  type RateLimiter,
  taskId as taskIdOf,
} from '@pantala/base';
import type { StoredTask, TaskStore } from '@pantala/store';
import { type Origin, ParentPool } from '@pantala/transfer';
import { Conductor, type OriginFacts } from './conductor.ts';
import type { DownloadRequest, OpenTask, Swarm, TaskNewsEvent, TaskWatcher } from './contract.ts';
import type { Environment } from './environment.ts';
import { heldTask } from './held-tasks.ts';
import { swarmMetrics } from './metrics.ts';
import { TaskNewsBoard } from './news/task-news.ts';
import type { ServerAddress, SwarmOptions, SwarmOptionsGiven } from './options.ts';
import { ParentHosts } from './parents/parent-hosts.ts';
import type { HostFacts } from './schedulers/host-message.ts';
import { Schedulers } from './schedulers/schedulers.ts';
import { TaskCreation, WHOLE } from './task-creation.ts';
import { TaskDoneLog } from './task-done-log.ts';
import { TaskReader } from './task-reader.ts';
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
  readonly #ids = new Lru<string, string>(MAX_KNOWN_IDS);
  readonly #boards = new Map<string, TaskNewsBoard>();
  readonly #creation: TaskCreation;
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
    this.#creation = new TaskCreation(this.#env);
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
      ({ task, origin } = await this.#creation.create(id, request, whole === true ? WHOLE : range, signal));
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
    this.#creation.dropBegun(Number.POSITIVE_INFINITY);
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
    const body = this.#creation.takeBegun(id);
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
    this.#creation.dropBegun(now - SWEEP_INTERVAL);
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

  *#heldTasks() {
    for (const task of this.#env.store.tasks()) {
      if (task.blocks.count > 0) yield heldTask(task, this.#conductors.get(task.description.id)?.peerId);
    }
  }
}
