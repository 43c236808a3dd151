import { Bitmap, type BlockRun, type Geometry } from '@pantala/base';
import type { Holdings } from './holdings.ts';
import { UNIT_BLOCKS, unitCount } from './units.ts';

/** For which blocks a digest is known or comes with them: only these may be asked for. */
export class KnownDigests {
  /** False where nobody gives digests: then every block may be asked for. */
  needed = true;
  readonly #geometry: Geometry;
  readonly #checkable: Bitmap;
  /** Blocks of each unit that are checkable. */
  readonly #counts: Uint8Array;
  /** Pieces whose digest is known. */
  readonly #listable: Bitmap;

  constructor(geometry: Geometry) {
    this.#geometry = geometry;
    this.#checkable = new Bitmap(geometry.blockCount);
    this.#counts = new Uint8Array(unitCount(geometry));
    this.#listable = new Bitmap(geometry.pieceCount);
  }

  addBlocks(run: BlockRun): void {
    for (let block = run.first; block < run.first + run.count; block++) {
      if (!this.#checkable.set(block)) continue;
      const unit = Math.floor(block / UNIT_BLOCKS);
      this.#counts[unit] = (this.#counts[unit] ?? 0) + 1;
    }
  }

  addPiece(piece: number): void {
    this.#listable.set(piece);
  }

  clear(): void {
    this.#checkable.clearAll();
    this.#counts.fill(0);
    this.#listable.clearAll();
  }

  hasBlock(block: number): boolean {
    return this.#checkable.has(block);
  }

  hasPiece(piece: number): boolean {
    return this.#listable.has(piece);
  }

  /** Whether a block's digest is known, or comes with the block as this parent has the whole piece. */
  canCheck(holdings: Holdings, block: number): boolean {
    if (!this.needed || this.#checkable.has(block)) return true;
    return this.#givesList(holdings, this.#geometry.pieceOfBlock(block));
  }

  /** The same for all blocks of a unit; false also where only looking at each of them tells. */
  canCheckUnit(holdings: Holdings, unit: number): boolean {
    const first = unit * UNIT_BLOCKS;
    const end = Math.min(first + UNIT_BLOCKS, this.#geometry.blockCount);
    if (!this.needed || this.#counts[unit] === end - first) return true;
    // Most units lie in one piece, whose list comes with them.
    const piece = this.#geometry.pieceOfBlock(first);
    return piece === this.#geometry.pieceOfBlock(end - 1) && this.#givesList(holdings, piece);
  }

  #givesList(holdings: Holdings, piece: number): boolean {
    return this.#listable.has(piece) && holdings.hasPiece(piece);
  }
}
