import type { BlockRun, Geometry } from '@pantala/base';
import { UNIT_BLOCKS, unitBlocks, unitCount } from '../selection/units.ts';

/** Runs that one message may carry at most: units are dealt in larger parts where a task has more. */
const MAX_RUNS = 2048;

/** What a watcher is to be told about who fetches what. */
export interface Deals {
  readonly assigned: BlockRun[];
  readonly deferred: BlockRun[];
}

/**
 * How a seed deals its units out to those who fetch everything, so that each leaves the seed about once: one part
 * after the other, to each watcher in turn. The whole is dealt anew when a watcher comes or goes.
 */
export class Dealer {
  readonly #geometry: Geometry;
  /** Units of a part. */
  readonly #partUnits: number;
  readonly #watchers: string[] = [];

  constructor(geometry: Geometry) {
    this.#geometry = geometry;
    this.#partUnits = Math.max(1, Math.ceil(unitCount(geometry) / MAX_RUNS));
  }

  get watchers(): number {
    return this.#watchers.length;
  }

  join(watcher: string): void {
    if (!this.#watchers.includes(watcher)) this.#watchers.push(watcher);
  }

  leave(watcher: string): void {
    const at = this.#watchers.indexOf(watcher);
    if (at >= 0) this.#watchers.splice(at, 1);
  }

  /** Whose the units of these runs are, as one watcher is told. Units of which a part is held are dealt as a whole. */
  deals(watcher: string, runs: Iterable<BlockRun>): Deals {
    const turn = this.#watchers.indexOf(watcher);
    const deals: Deals = { assigned: [], deferred: [] };
    if (turn < 0) return deals;
    for (const run of runs) {
      const end = Math.floor((run.first + run.count - 1) / UNIT_BLOCKS);
      for (let unit = Math.floor(run.first / UNIT_BLOCKS); unit <= end; unit++) {
        const owner = Math.floor(unit / this.#partUnits) % this.#watchers.length;
        append(owner === turn ? deals.assigned : deals.deferred, unitBlocks(this.#geometry, unit));
      }
    }
    return deals;
  }
}

/** Adds a run to a list, as part of the last one where they touch or overlap. */
function append(runs: BlockRun[], run: BlockRun): void {
  const last = runs.at(-1);
  if (last !== undefined && run.first <= last.first + last.count && run.first >= last.first) {
    runs[runs.length - 1] = {
      first: last.first,
      count: Math.max(last.count, run.first + run.count - last.first),
    };
  } else {
    runs.push(run);
  }
}
