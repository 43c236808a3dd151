import type { BlockRun, Geometry } from '@pantala/base';

/** Blocks of a unit of trade in bulk: 256 KiB, small enough to be spread well, large enough to be asked for cheaply. */
export const UNIT_BLOCKS = 16;

/** Units of a task: `UNIT_BLOCKS` blocks each, the last one shorter. */
export function unitCount(geometry: Geometry): number {
  return Math.ceil(geometry.blockCount / UNIT_BLOCKS);
}

/** The blocks of a unit. */
export function unitBlocks(geometry: Geometry, unit: number): BlockRun {
  const first = unit * UNIT_BLOCKS;
  return { first, count: Math.min(UNIT_BLOCKS, geometry.blockCount - first) };
}

/** The runs of at most `longest` blocks, none across a piece, that make up `run`. */
export function* withinPieces(geometry: Geometry, run: BlockRun, longest: number): Generator<BlockRun> {
  const end = run.first + run.count;
  let first = run.first;
  while (first < end) {
    const piece = geometry.pieceBlocks(geometry.pieceOfBlock(first));
    const stop = Math.min(end, piece.first + piece.count, first + longest);
    yield { first, count: stop - first };
    first = stop;
  }
}

/** Blocks that two runs have in common. */
export function overlap(a: BlockRun, b: BlockRun): BlockRun | undefined {
  const first = Math.max(a.first, b.first);
  const end = Math.min(a.first + a.count, b.first + b.count);
  return first < end ? { first, count: end - first } : undefined;
}
