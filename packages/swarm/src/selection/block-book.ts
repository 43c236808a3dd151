import { Bitmap, type BlockRun, type Geometry } from '@pantala/base';
import { UNIT_BLOCKS, unitBlocks, unitCount } from './units.ts';

/** Which blocks of a task are held, which somebody fetches, and which are still to be asked for. */
export class BlockBook {
  /** Held, or being fetched by someone (parents or origin). */
  readonly #taken: Bitmap;
  readonly #held: Bitmap;
  /** Blocks of each unit that are not taken. */
  readonly #left: Uint8Array;
  #cursor = 0;
  #prefix = 0;

  constructor(geometry: Geometry) {
    this.#taken = new Bitmap(geometry.blockCount);
    this.#held = new Bitmap(geometry.blockCount);
    const units = unitCount(geometry);
    this.#left = new Uint8Array(units);
    for (let unit = 0; unit < units; unit++) this.#left[unit] = unitBlocks(geometry, unit).count;
  }

  /** These blocks are in the store. */
  hold(run: BlockRun): void {
    this.take(run);
    this.#held.setRun(run);
  }

  /** Somebody fetches these blocks. */
  take(run: BlockRun): void {
    for (let block = run.first; block < run.first + run.count; block++) {
      if (!this.#taken.set(block)) continue;
      const unit = Math.floor(block / UNIT_BLOCKS);
      this.#left[unit] = (this.#left[unit] ?? 1) - 1;
    }
  }

  /** Blocks that were taken and did not come are missing again. True when there are any. */
  release(run: BlockRun): boolean {
    let released = false;
    for (let block = run.first; block < run.first + run.count; block++) {
      if (this.#held.has(block) || !this.#taken.has(block)) continue;
      released = true;
      this.#taken.clear(block);
      const unit = Math.floor(block / UNIT_BLOCKS);
      this.#left[unit] = (this.#left[unit] ?? 0) + 1;
      if (unit < this.#cursor) this.#cursor = unit;
    }
    return released;
  }

  /** Blocks that were held are not any more. True when some are missing for it. */
  drop(run: BlockRun): boolean {
    for (let block = run.first; block < run.first + run.count; block++) this.#held.clear(block);
    this.#prefix = Math.min(this.#prefix, run.first);
    return this.release(run);
  }

  isTaken(block: number): boolean {
    return this.#taken.has(block);
  }

  hasAll(run: BlockRun): boolean {
    return this.#held.hasAll(run);
  }

  /** Whether any block of a run is being fetched by someone. */
  isUnderWay(run: BlockRun): boolean {
    for (const taken of this.#taken.runs(true, run)) if (!this.#held.hasAll(taken)) return true;
    return false;
  }

  /** The parts of a run that are neither held nor being fetched. */
  missing(within: BlockRun): Generator<BlockRun> {
    return this.#taken.runs(false, within);
  }

  /** The first block from `block` on that is neither held nor being fetched; the number of blocks without one. */
  nextMissing(block: number): number {
    return this.#taken.next(false, block);
  }

  /** Blocks of a unit that are missing. */
  left(unit: number): number {
    return this.#left[unit] ?? 0;
  }

  /** The first unit of which something is missing. */
  firstUnit(): number {
    while (this.#cursor < this.#left.length && this.#left[this.#cursor] === 0) this.#cursor++;
    return this.#cursor;
  }

  /** End of the blocks that are in the store without a gap from the first. */
  heldPrefix(): number {
    this.#prefix = this.#held.next(false, this.#prefix);
    return this.#prefix;
  }
}
