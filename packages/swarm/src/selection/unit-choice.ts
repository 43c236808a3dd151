import type { BlockRun, Geometry } from '@pantala/base';
import type { BlockBook } from './block-book.ts';
import type { Holdings } from './holdings.ts';
import type { KnownDigests } from './known-digests.ts';
import { DEFERRED_RANK, nothingBetterFrom, rankOf } from './ranking.ts';
import { overlap, UNIT_BLOCKS, unitBlocks } from './units.ts';

/** Milliseconds that a unit dealt to another peer stays that peer's, counted from when nothing better was left. */
export const PATIENCE = 500;
/** Units looked at in one choice, from the first missing one: 2 GiB, so that a choice costs microseconds. */
export const WINDOW_UNITS = 8192;

/** A parent that units are chosen for. */
export interface UnitGiver {
  readonly holdings: Holdings;
  /** Milliseconds; when it last was asked for something better than a deferred unit. */
  busyAt: number;
}

export interface UnitChoiceState {
  readonly geometry: Geometry;
  readonly book: BlockBook;
  readonly digests: KnownDigests;
  /** Parents that have the whole of each unit. */
  readonly holders: Uint16Array;
  /** Of the host that chooses. */
  readonly salt: number;
}

/** Which units are best asked of which parent: those dealt to us, then the rarest. */
export class UnitChoice {
  readonly #state: UnitChoiceState;

  constructor(state: UnitChoiceState) {
    this.#state = state;
  }

  /** Runs of missing blocks that make up the `room` units that are best asked of this parent, in their order. */
  runs(parent: UnitGiver, wanted: BlockRun, room: number, now: number): BlockRun[] {
    const { geometry, book } = this.#state;
    const runs: BlockRun[] = [];
    let open: BlockRun | undefined;
    for (const unit of this.#best(parent, wanted, room, now).sort((a, b) => a - b)) {
      const blocks = overlap(unitBlocks(geometry, unit), wanted);
      if (blocks === undefined) continue;
      for (const gap of book.missing(blocks)) {
        if (open !== undefined && open.first + open.count === gap.first) {
          open = { first: open.first, count: open.count + gap.count };
          continue;
        }
        if (open !== undefined) runs.push(open);
        open = gap;
      }
    }
    if (open !== undefined) runs.push(open);
    return runs;
  }

  /** The units, in no order. */
  #best(parent: UnitGiver, wanted: BlockRun, room: number, now: number): number[] {
    const { book, holders, salt } = this.#state;
    const start = Math.max(book.firstUnit(), Math.floor(wanted.first / UNIT_BLOCKS));
    const end = Math.min(Math.ceil((wanted.first + wanted.count) / UNIT_BLOCKS), start + WINDOW_UNITS);
    const units: number[] = [];
    const ranks: number[] = [];
    // Who has just come has had no time to be given something better.
    if (parent.busyAt === Number.NEGATIVE_INFINITY) parent.busyAt = now;
    const patient = now - parent.busyAt < PATIENCE;
    for (let unit = start; unit < end; unit++) {
      if (units.length === room && nothingBetterFrom(unit, ranks[room - 1] as number, parent.holdings)) break;
      if (book.left(unit) === 0 || !this.#canGive(parent, unit)) continue;
      const rank = rankOf(salt, parent.holdings, unit, holders[unit] ?? 0, patient);
      if (units.length === room && rank >= (ranks[room - 1] as number)) continue;
      let at = units.length;
      while (at > 0 && (ranks[at - 1] as number) > rank) at--;
      units.splice(at, 0, unit);
      ranks.splice(at, 0, rank);
      if (units.length > room) {
        units.length = room;
        ranks.length = room;
      }
    }
    while (ranks.length > 0 && ranks.at(-1) === Number.POSITIVE_INFINITY) {
      ranks.pop();
      units.pop();
    }
    if (ranks.length > 0 && (ranks[0] as number) < DEFERRED_RANK) parent.busyAt = now;
    return units;
  }

  /** Whether the parent has every missing block of a unit and their digests can be had. */
  #canGive({ holdings }: UnitGiver, unit: number): boolean {
    const { book, digests, geometry } = this.#state;
    if (holdings.hasUnit(unit) && digests.canCheckUnit(holdings, unit)) return true;
    const first = unit * UNIT_BLOCKS;
    const end = Math.min(first + UNIT_BLOCKS, geometry.blockCount);
    for (let block = first; block < end; block++) {
      if (book.isTaken(block)) continue;
      if (!holdings.blocks.has(block) || !digests.canCheck(holdings, block)) return false;
    }
    return true;
  }
}
