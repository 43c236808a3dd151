import type { BlockRun } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { Demand } from './demand.ts';
import type { Sign } from './parent-set.ts';

/** Milliseconds that a parent may be silent before the origin is asked as well (never less). */
export const HEDGE_AFTER = 1000;
/** Milliseconds for parents that never said anything: with a look every 100 ms, half a second is never exceeded. */
export const FIRST_SIGN_TIMEOUT = 400;
/** How many of its usual answers a parent may be silent. */
export const HEDGE_ANSWERS = 4;
/** Bytes that are asked of the origin for a reader whose parent is silent; twice as many each time it stays so. */
export const FIRST_HEDGE = 1024 * 1024;
export const LONGEST_HEDGE = 64 * 1024 * 1024;

/** Decides when the origin is asked for what a reader waits for from parents that are silent. Times in milliseconds. */
export class Hedge {
  readonly #task: StoredTask;
  #hedgedAt = Number.NEGATIVE_INFINITY;
  #length = FIRST_HEDGE;

  constructor(task: StoredTask) {
    this.#task = task;
  }

  /** The blocks to ask for now, if any. @param signAbout when a block's parents were last heard of */
  due(demand: Demand, now: number, signAbout: (block: number) => Sign): BlockRun | undefined {
    const { geometry, blocks } = this.#task;
    if (demand.position >= demand.range.end) return undefined;
    const first = geometry.blockAt(demand.position);
    if (blocks.has(first)) return undefined;
    const sign = signAbout(first);
    // Once silent, they are believed to be so until they are heard of again.
    if (sign.at >= this.#hedgedAt) {
      const patience = sign.heard ? Math.max(HEDGE_AFTER, HEDGE_ANSWERS * sign.usualAnswer) : FIRST_SIGN_TIMEOUT;
      // Who has just been offered has no time of its own while it never said anything.
      const since = sign.heard ? Math.max(demand.waitingSince, sign.at) : demand.waitingSince;
      if (now - since < patience) return undefined;
      this.#length = FIRST_HEDGE;
    }
    this.#hedgedAt = now;
    const end = Math.min(demand.range.end, demand.position + this.#length);
    this.#length = Math.min(LONGEST_HEDGE, this.#length * 2);
    const wanted = geometry.blocksOf({ start: demand.position, end });
    return { first, count: Math.min(wanted.first + wanted.count, blocks.next(true, first)) - first };
  }
}
