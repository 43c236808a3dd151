import { Bitmap, type BlockRun, type Geometry } from '@pantala/base';
import { UNIT_BLOCKS, unitCount } from './units.ts';

/** How a seed has dealt a unit: to this peer, to another one, or not at all. */
export const Deal = { none: 0, assigned: 1, deferred: 2 } as const;
export type Deal = (typeof Deal)[keyof typeof Deal];

/** What one parent has, as its news tell it. */
export class Holdings {
  readonly blocks: Bitmap;
  readonly #geometry: Geometry;
  /** Blocks held of each unit. */
  readonly #counts: Uint8Array;
  /** Blocks held of each piece. */
  readonly #pieceCounts: Uint32Array;
  /** A `Deal` for each unit; allocated when the first one is dealt. */
  #deals: Uint8Array | undefined;
  #assigned = 0;

  constructor(geometry: Geometry) {
    this.#geometry = geometry;
    this.blocks = new Bitmap(geometry.blockCount);
    this.#counts = new Uint8Array(unitCount(geometry));
    this.#pieceCounts = new Uint32Array(geometry.pieceCount);
  }

  /** Adds blocks; calls `whole` for each unit that the parent has all of now. */
  add(run: BlockRun, whole: (unit: number) => void): void {
    const end = Math.min(run.first + run.count, this.#geometry.blockCount);
    for (let block = run.first; block < end; block++) {
      if (!this.blocks.set(block)) continue;
      const unit = Math.floor(block / UNIT_BLOCKS);
      this.#counts[unit] = (this.#counts[unit] ?? 0) + 1;
      const piece = Math.floor(block / this.#geometry.blocksPerPiece);
      this.#pieceCounts[piece] = (this.#pieceCounts[piece] ?? 0) + 1;
      if (this.hasUnit(unit)) whole(unit);
    }
  }

  hasUnit(unit: number): boolean {
    return this.#counts[unit] === Math.min(UNIT_BLOCKS, this.#geometry.blockCount - unit * UNIT_BLOCKS);
  }

  hasPiece(piece: number): boolean {
    const { blocksPerPiece, blockCount } = this.#geometry;
    return this.#pieceCounts[piece] === Math.min(blocksPerPiece, blockCount - piece * blocksPerPiece);
  }

  get complete(): boolean {
    return this.blocks.count === this.#geometry.blockCount;
  }

  deal(run: BlockRun, deal: Deal): void {
    this.#deals ??= new Uint8Array(this.#counts.length);
    const end = Math.min(run.first + run.count, this.#geometry.blockCount);
    for (let unit = Math.floor(run.first / UNIT_BLOCKS); unit * UNIT_BLOCKS < end; unit++) {
      if (this.#deals[unit] === Deal.assigned) this.#assigned--;
      if (deal === Deal.assigned) this.#assigned++;
      this.#deals[unit] = deal;
    }
  }

  dealOf(unit: number): Deal {
    return (this.#deals?.[unit] ?? Deal.none) as Deal;
  }

  /** Units that were dealt to this peer, fetched or not. */
  get assigned(): number {
    return this.#assigned;
  }
}
