import { type BlockRun, Deferred, PantalaError } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { TaskNewsEvent, TaskWatcher } from '../contract.ts';
import { Dealer } from './dealer.ts';

/**
 * Milliseconds between two messages to one watcher: the first one after a quiet time goes at once, and the more have
 * gone since then the longer the next is gathered: a crowd of eight tells each other things in 56 directions. When
 * little is missing there is little else to ask for meanwhile.
 */
const FIRST_PAUSE = 20;
const LONGEST_PAUSE = 200;
const PAUSE_GROWTH = 4;
const LAST_PAUSE = 50;
/** Share of the content from which on news are hurried again. */
const NEARLY_ALL = 0.95;
/** Milliseconds between signs of life while this node itself asks the origin. */
const SIGN_INTERVAL = 400;
/** Runs in one message. */
const MAX_RUNS_PER_MESSAGE = 16_384;

interface Watch {
  fresh: BlockRun[];
  /** Everything is to be dealt anew. */
  redeal: boolean;
  gone: boolean;
  wake: Deferred;
}

/** What one task's watchers are told of it: what is held, as it comes, and (by a seed) who is to fetch what first. */
export class TaskNewsBoard {
  readonly #task: StoredTask;
  readonly #seed: boolean;
  readonly #asksOrigin: () => boolean;
  readonly #dealer: Dealer;
  readonly #watches = new Map<string, Watch>();
  readonly #subscription: Disposable;
  #next = 1;

  /** @param asksOrigin whether this node is waiting for the origin at this moment */
  constructor(task: StoredTask, seed: boolean, asksOrigin: () => boolean) {
    this.#task = task;
    this.#seed = seed;
    this.#asksOrigin = asksOrigin;
    this.#dealer = new Dealer(task.geometry);
    this.#subscription = task.subscribe((event) => {
      for (const watch of this.#watches.values()) {
        if (event.kind === 'void') watch.gone = true;
        else if (event.kind === 'blocks') add(watch.fresh, event.run);
        watch.wake.resolve();
      }
    });
  }

  get watchers(): number {
    return this.#watches.size;
  }

  /** @throws `not-found` when what the task held is void */
  async *watch(watcher: TaskWatcher): AsyncGenerator<TaskNewsEvent> {
    const name = `${watcher.hostId} ${this.#next++}`;
    const watch: Watch = { fresh: [...this.#task.blocks.runs(true)], redeal: false, gone: false, wake: new Deferred() };
    this.#watches.set(name, watch);
    const dealt = this.#seed && watcher.bulk;
    if (dealt) {
      this.#dealer.join(name);
      this.#redeal(name);
    }
    const onAbort = (): void => watch.wake.resolve();
    watcher.signal.addEventListener('abort', onAbort, { once: true });
    try {
      let lastSent = Number.NEGATIVE_INFINITY;
      let first = true;
      let pause = FIRST_PAUSE;
      while (!watcher.signal.aborted) {
        if (watch.gone) throw new PantalaError('not-found', 'the content is gone');
        if (first || watch.fresh.length > 0 || watch.redeal) {
          first = false;
          lastSent = performance.now();
          yield this.#message(name, watch, dealt);
          const hurried = this.#task.blocks.count > NEARLY_ALL * this.#task.geometry.blockCount;
          await quiet(hurried ? Math.min(pause, LAST_PAUSE) : pause, watcher.signal);
          pause = Math.min(LONGEST_PAUSE, pause + PAUSE_GROWTH);
          continue;
        }
        pause = FIRST_PAUSE;
        watch.wake = new Deferred();
        const woken = await Promise.race([
          watch.wake.promise.then(() => true),
          quiet(SIGN_INTERVAL, watcher.signal).then(() => false),
        ]);
        if (woken || !this.#asksOrigin() || performance.now() - lastSent < SIGN_INTERVAL) continue;
        lastSent = performance.now();
        yield { ...this.#head(), held: [], assigned: [], deferred: [] };
      }
    } finally {
      watcher.signal.removeEventListener('abort', onAbort);
      this.#watches.delete(name);
      if (dealt) {
        this.#dealer.leave(name);
        this.#redeal(undefined);
      }
    }
  }

  [Symbol.dispose](): void {
    this.#subscription[Symbol.dispose]();
  }

  #message(name: string, watch: Watch, dealt: boolean): TaskNewsEvent {
    const held = watch.fresh.splice(0, MAX_RUNS_PER_MESSAGE);
    const { redeal } = watch;
    watch.redeal = false;
    const deals = dealt
      ? this.#dealer.deals(name, redeal ? this.#task.blocks.runs(true) : held)
      : { assigned: [], deferred: [] };
    return { ...this.#head(), held, ...deals };
  }

  #head(): { readonly contentLength: number; readonly pieceLength: number } {
    const { contentLength, pieceLength } = this.#task.geometry;
    return { contentLength, pieceLength };
  }

  #redeal(except: string | undefined): void {
    for (const [name, watch] of this.#watches) {
      if (name === except) continue;
      watch.redeal = true;
      watch.wake.resolve();
    }
  }
}

function add(runs: BlockRun[], run: BlockRun): void {
  const last = runs.at(-1);
  if (last !== undefined && last.first + last.count === run.first) {
    runs[runs.length - 1] = { first: last.first, count: last.count + run.count };
  } else {
    runs.push(run);
  }
}

/** Resolves after a time, or when the signal aborts. */
function quiet(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = (): void => {
      clearTimeout(timer);
      signal.removeEventListener('abort', end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener('abort', end, { once: true });
  });
}
