import type { pantalaV1, Sent } from '@pantala/api';
import { HashRing, type Logger, PantalaError } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import { heldTask } from '../held-tasks.ts';
import type { ServerAddress, SwarmOptions } from '../options.ts';
import type { HostFacts } from './host-message.ts';
import { SchedulerLink, TASKS_PER_MESSAGE } from './link.ts';

/** Characters of a task's id that decide which scheduler it belongs to (upstream's rule). */
const KEY_LENGTH = 5;
/** Milliseconds that a download waits for a scheduler when none is up: the process or the scheduler has just started. */
const FIRST_WORD_TIMEOUT = 500;

/** Milliseconds for which complete tasks are gathered before schedulers hear of them. */
const TELL_DELAY = 50;

export interface SchedulersDependencies {
  readonly options: SwarmOptions;
  readonly logger: Logger;
  heldTasks(): Iterable<Sent<typeof pantalaV1.HeldTaskSchema>>;
  hostFacts(): HostFacts;
}

/** All schedulers of the cluster: this process is announced to each, and each task belongs to one that is up. */
export class Schedulers implements AsyncDisposable {
  readonly #deps: SchedulersDependencies;
  readonly #links = new Map<string, SchedulerLink>();
  /** Of the schedulers that were up when it was last looked at. */
  #ring = new HashRing([]);
  /** A download has waited in vain: the next ones do not, until a scheduler was up again. */
  #silent = false;
  /** Tasks that are complete, and the peers that hold them, to be told of together. */
  readonly #complete = new Map<StoredTask, string>();
  #telling: NodeJS.Timeout | undefined;

  constructor(deps: SchedulersDependencies) {
    this.#deps = deps;
    this.set(deps.options.schedulers);
  }

  get configured(): boolean {
    return this.#links.size > 0;
  }

  /** Replaces the list of schedulers. */
  set(addresses: readonly ServerAddress[]): void {
    const wanted = new Map(addresses.map((address) => [`${address.host}:${address.port}`, address]));
    for (const [name, link] of this.#links) {
      if (wanted.has(name)) continue;
      this.#links.delete(name);
      link[Symbol.asyncDispose]().catch((error: unknown) => {
        this.#deps.logger.debug('leaving a scheduler failed', { scheduler: name, reason: String(error) });
      });
    }
    for (const [name, address] of wanted) {
      if (this.#links.has(name)) continue;
      this.#links.set(name, new SchedulerLink(address, this.#deps));
      this.#silent = false;
    }
  }

  /** The scheduler of a task, among those that are up; undefined when none is. */
  linkOf(taskId: string): SchedulerLink | undefined {
    const up = [...this.#links].filter(([, link]) => link.up).map(([name]) => name);
    if (up.length !== this.#ring.nodes.length || up.some((name) => !this.#ring.nodes.includes(name))) {
      this.#ring = new HashRing(up);
    }
    const name = this.#ring.pick(taskId.slice(0, KEY_LENGTH));
    return name === undefined ? undefined : this.#links.get(name);
  }

  /** Waits until a scheduler is up or none can be reached, but not for long. */
  async firstWord(): Promise<void> {
    if (this.#links.size === 0) return;
    if ([...this.#links.values()].some((link) => link.up)) {
      this.#silent = false;
      return;
    }
    if (this.#silent) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(() => {
        this.#silent = true;
        resolve();
      }, FIRST_WORD_TIMEOUT);
    });
    const reached = [...this.#links.values()].map(async (link) => {
      if (!(await link.reach())) throw new PantalaError('unavailable', `${link.name} is out of reach`);
    });
    await Promise.race([Promise.any(reached).catch(() => undefined), late]);
    clearTimeout(timer);
  }

  /** Tells every scheduler what is held of some tasks now. */
  tellHeld(tasks: readonly Sent<typeof pantalaV1.HeldTaskSchema>[]): void {
    for (const link of this.#links.values()) link.tellHeld(tasks);
  }

  /** Tells of a task that is complete without having been registered; several together, a little later. */
  tellComplete(task: StoredTask, peerId: string): void {
    // Who comes up hears of everything that is held.
    if (![...this.#links.values()].some((link) => link.up)) return;
    this.#complete.set(task, peerId);
    this.#telling ??= setTimeout(() => {
      this.#telling = undefined;
      const tasks = [...this.#complete];
      this.#complete.clear();
      for (let at = 0; at < tasks.length; at += TASKS_PER_MESSAGE) {
        this.tellHeld(tasks.slice(at, at + TASKS_PER_MESSAGE).map(([held, peer]) => heldTask(held, peer)));
      }
    }, TELL_DELAY);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearTimeout(this.#telling);
    const links = [...this.#links.values()];
    this.#links.clear();
    await Promise.all(links.map((link) => link[Symbol.asyncDispose]()));
  }
}
