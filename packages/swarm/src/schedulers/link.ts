import {
  createClient,
  durationFromMs,
  formatRpcAddress,
  MessageQueue,
  pantalaV1,
  type Received,
  RpcError,
  type Sent,
  schedulerV2,
} from '@pantala/api';
import { Backoff, Deferred, type Logger, monotonicNow, PantalaError, sleep } from '@pantala/base';
import type { ServerAddress, SwarmOptions } from '../options.ts';
import { type HostFacts, hostMessage } from './host-message.ts';

/** What one task's download hears of digests. */
export interface DigestListener {
  digestNews(news: Received<typeof pantalaV1.DigestNewsSchema>): void;
  digestsVoid(): void;
}

export interface LinkDependencies {
  readonly options: SwarmOptions;
  readonly logger: Logger;
  /** What this host holds now, in the order in which it is told. */
  heldTasks(): Iterable<Sent<typeof pantalaV1.HeldTaskSchema>>;
  hostFacts(): HostFacts;
}

type ConverseRequest = Sent<typeof pantalaV1.ConverseRequestSchema>['request'];

/** Tasks in one message of held tasks: below a megabyte even with a piece digest or two each. */
export const TASKS_PER_MESSAGE = 500;
/** Piece digests in one message of held tasks, 40 bytes each. */
const PIECES_PER_MESSAGE = 10_000;
/** Milliseconds between pings, and for their answers: a machine that is gone without a word is noticed soon. */
const KEEPALIVE = { keepaliveInterval: 10_000, keepaliveTimeout: 5000 };
/** Milliseconds that a scheduler may take to answer AnnounceHost. */
const ANNOUNCE_TIMEOUT = 3000;
/** Milliseconds that an orderly stop waits for DeleteHost. */
const LEAVE_TIMEOUT = 1000;
/** Milliseconds between attempts to reach a scheduler that is down, at first and at most. */
const FIRST_PAUSE = 200;
const LONGEST_PAUSE = 10_000;
/** A scheduler that restarts is found again within half a second, by all hosts at about the same time. */
const PAUSE_GROWTH = 1.25;
/** Milliseconds after a lost conversation in which a scheduler may just not know the others again yet. */
const COMPANY_MEMORY = 2 * LONGEST_PAUSE;

/** This process's relation to one scheduler: announced, and in conversation where the scheduler can. */
export class SchedulerLink implements AsyncDisposable {
  readonly address: ServerAddress;
  readonly name: string;
  readonly client;
  readonly #talk;
  readonly #deps: LinkDependencies;
  readonly #stop = new AbortController();
  /** Resolves at the end of the attempt to reach it that is under way or comes next, either way. */
  #attempt = new Deferred();
  /** Ends the pause before the next attempt. */
  #hurry = new Deferred();
  readonly #listeners = new Map<string, Set<DigestListener>>();
  readonly #running: Promise<void>;
  #queue: MessageQueue<Sent<typeof pantalaV1.ConverseRequestSchema>> | undefined;
  #up = false;
  #pantala = false;
  #alone = false;
  /** Milliseconds (monotonic) until which others are taken to be there still. */
  #companyUntil = 0;
  #doubted = false;
  #asking: Promise<void> | undefined;

  constructor(address: ServerAddress, deps: LinkDependencies) {
    this.address = address;
    this.name = formatRpcAddress(address);
    this.#deps = deps;
    const tls = deps.options.schedulerTls;
    this.client = createClient(schedulerV2.Scheduler, address, { deadline: ANNOUNCE_TIMEOUT, tls });
    this.#talk = createClient(pantalaV1.Scheduler, address, { ...KEEPALIVE, tls });
    this.#running = this.#run();
  }

  /** It answered the last time it was asked. */
  get up(): boolean {
    return this.#up && !this.#doubted;
  }

  /** It lets a download wait for its answer: it counts as down until it answers something else. */
  doubt(): void {
    if (this.#doubted) return;
    this.#doubted = true;
    this.#deps.logger.info('scheduler is silent', { scheduler: this.name });
    this.#asking = this.#askAgain();
  }

  /** It hands out digests. */
  get pantala(): boolean {
    return this.#pantala;
  }

  /** No other host is known to it, so that nobody but the origin can be asked. */
  get alone(): boolean {
    return this.#alone && monotonicNow() >= this.#companyUntil;
  }

  /** Tries to reach it without waiting for the next turn. @returns whether it is up then */
  async reach(): Promise<boolean> {
    if (!this.up) {
      const attempt = this.#attempt.promise;
      this.#hurry.resolve();
      await attempt;
    }
    return this.up;
  }

  /** Sends something if the conversation is open; what is lost otherwise is told again after the next connect. */
  send(request: NonNullable<ConverseRequest>): void {
    this.#queue?.push({ hostId: this.#deps.options.hostId, request });
  }

  watchDigests(taskId: string, listener: DigestListener): Disposable {
    const listeners = this.#listeners.get(taskId) ?? new Set();
    this.#listeners.set(taskId, listeners);
    listeners.add(listener);
    this.send({ case: 'watchDigests', value: { taskId } });
    return {
      [Symbol.dispose]: () => {
        listeners.delete(listener);
        if (listeners.size > 0 || this.#listeners.get(taskId) !== listeners) return;
        this.#listeners.delete(taskId);
        this.send({ case: 'unwatchDigests', value: { taskId } });
      },
    };
  }

  /** Tells what is held of tasks that changed without a download, or are gone (0 blocks). */
  tellHeld(tasks: readonly Sent<typeof pantalaV1.HeldTaskSchema>[]): void {
    this.send({ case: 'heldTasks', value: { tasks: [...tasks], completeList: false } });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const wasUp = this.#up;
    this.#stop.abort(new PantalaError('cancelled', 'the swarm has stopped'));
    await this.#running;
    await this.#asking;
    if (wasUp) {
      await this.client
        .deleteHost({ hostId: this.#deps.options.hostId }, { deadline: LEAVE_TIMEOUT })
        .catch(() => undefined);
    }
    this.client[Symbol.dispose]();
    this.#talk[Symbol.dispose]();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stop;
    const pauses = new Backoff({ initial: FIRST_PAUSE, limit: LONGEST_PAUSE, factor: PAUSE_GROWTH });
    while (!signal.aborted) {
      try {
        await this.#announce(signal);
        pauses.reset();
        await this.#converse(signal);
      } catch (thrown) {
        if (signal.aborted) break;
        const error = PantalaError.from(thrown);
        if (pauses.attempts === 0) {
          this.#deps.logger.warn('scheduler is out of reach', { scheduler: this.name, reason: error.message });
        }
      }
      this.#setUp(false);
      this.#attempt.resolve();
      this.#attempt = new Deferred();
      this.#hurry = new Deferred();
      await this.#pause(pauses.next(), signal);
    }
    this.#setUp(false);
    this.#attempt.resolve();
  }

  /** Until the next attempt is due, or somebody needs the scheduler. */
  async #pause(milliseconds: number, signal: AbortSignal): Promise<void> {
    const over = new AbortController();
    const slept = sleep(milliseconds, AbortSignal.any([signal, over.signal])).catch(() => undefined);
    await Promise.race([slept, this.#hurry.promise]);
    over.abort();
  }

  /** Announces until that is answered. */
  async #askAgain(): Promise<void> {
    const { signal } = this.#stop;
    const pauses = new Backoff({ initial: FIRST_PAUSE, limit: LONGEST_PAUSE, factor: PAUSE_GROWTH });
    while (!signal.aborted && this.#doubted) {
      try {
        await this.#announce(signal);
        this.#doubted = false;
      } catch {
        await sleep(pauses.next(), signal).catch(() => undefined);
      }
    }
  }

  async #announce(signal: AbortSignal): Promise<void> {
    const { options } = this.#deps;
    await this.client.announceHost(
      { host: hostMessage(options, this.#deps.hostFacts()), interval: durationFromMs(options.announceInterval) },
      { signal },
    );
  }

  /** Talks until the stream ends. A scheduler of upstream's is announced to at each interval instead. */
  async #converse(signal: AbortSignal): Promise<void> {
    const queue = new MessageQueue<Sent<typeof pantalaV1.ConverseRequestSchema>>();
    this.#queue = queue;
    const { options } = this.#deps;
    queue.push({ hostId: options.hostId });
    for (const taskId of this.#listeners.keys()) this.send({ case: 'watchDigests', value: { taskId } });
    const again = setInterval(() => {
      this.#announce(signal).catch(() => undefined);
    }, options.announceInterval);
    try {
      for await (const { response } of this.#talk.converse(queue, { signal })) {
        // The first message says that the conversation stands.
        if (!this.#pantala) {
          this.#pantala = true;
          this.#setUp(true);
          this.#attempt.resolve();
        }
        this.#received(response);
      }
      throw new PantalaError('unavailable', `${this.name} ended the conversation`);
    } catch (thrown) {
      if (!(thrown instanceof RpcError) || thrown.code !== 'unimplemented') throw thrown;
      await this.#announceOnly(signal);
    } finally {
      clearInterval(again);
      queue.end();
      this.#queue = undefined;
      if (this.#pantala && !this.#alone) this.#companyUntil = monotonicNow() + COMPANY_MEMORY;
      this.#pantala = false;
      this.#alone = false;
    }
  }

  async #announceOnly(signal: AbortSignal): Promise<void> {
    this.#setUp(true);
    this.#attempt.resolve();
    while (!signal.aborted) {
      await sleep(this.#deps.options.announceInterval, signal);
      await this.#announce(signal);
    }
  }

  #received(response: Received<typeof pantalaV1.ConverseResponseSchema>['response']): void {
    if (response.case === 'digestNews') {
      for (const listener of this.#listeners.get(response.value.taskId) ?? []) listener.digestNews(response.value);
    } else if (response.case === 'digestsVoid') {
      for (const listener of this.#listeners.get(response.value.taskId) ?? []) listener.digestsVoid();
    } else if (response.case === 'heldTasksWanted') {
      this.#tellEverything();
    } else if (response.case === 'company') {
      this.#alone = response.value.alone;
    }
  }

  #tellEverything(): void {
    let tasks: Sent<typeof pantalaV1.HeldTaskSchema>[] = [];
    let pieces = 0;
    for (const task of this.#deps.heldTasks()) {
      tasks.push(task);
      pieces += task.pieces?.length ?? 0;
      if (tasks.length < TASKS_PER_MESSAGE && pieces < PIECES_PER_MESSAGE) continue;
      this.send({ case: 'heldTasks', value: { tasks, completeList: false } });
      tasks = [];
      pieces = 0;
    }
    this.send({ case: 'heldTasks', value: { tasks, completeList: true } });
  }

  #setUp(up: boolean): void {
    if (this.#up === up) return;
    this.#up = up;
    this.#deps.logger.debug(up ? 'scheduler is up' : 'scheduler is down', { scheduler: this.name });
  }
}
