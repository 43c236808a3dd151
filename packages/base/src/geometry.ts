import { PantalaError } from './errors.ts';
import type { ByteRange } from './ranges.ts';

/**
 * Bytes of a block: the smallest part of a task that is stored, checked and passed on by itself. 16 KiB is the
 * largest size at which a 128 KiB read at any offset costs less than 1.3 times its bytes, and the smallest at
 * which BLAKE3 still runs at full speed (its widest SIMD takes 16 chunks of 1 KiB at once).
 */
export const BLOCK_LENGTH = 16 * 1024;

/** Bytes of a BLAKE3 digest of a block or piece. */
export const DIGEST_LENGTH = 32;

/** Upstream's bounds of a piece (data-plane protocol, "piece length"). */
export const MIN_PIECE_LENGTH = 4 * 1024 * 1024;
export const MAX_PIECE_LENGTH = 64 * 1024 * 1024;

/** Upstream's rule: a five-hundredth of the content, as the next power of two, within the bounds. */
export function defaultPieceLength(contentLength: number): number {
  const target = Math.floor(contentLength / 500);
  let length = MIN_PIECE_LENGTH;
  while (length < target && length < MAX_PIECE_LENGTH) length *= 2;
  return length;
}

/** A run of consecutive blocks, by number within the task. */
export interface BlockRun {
  readonly first: number;
  readonly count: number;
}

/**
 * How a task's bytes fall into pieces and blocks. Blocks are numbered through the whole task and never cross a
 * piece: where the piece length is no multiple of the block length, the last block of each piece is shorter.
 */
export class Geometry {
  readonly contentLength: number;
  readonly pieceLength: number;
  readonly pieceCount: number;
  /** Blocks of a whole piece. */
  readonly blocksPerPiece: number;
  readonly blockCount: number;

  /** @throws `invalid-argument` for lengths that are no safe integers, or a piece length below one block. */
  constructor(contentLength: number, pieceLength: number) {
    if (!Number.isSafeInteger(contentLength) || contentLength < 0) {
      throw new PantalaError('invalid-argument', `content length ${contentLength} is not a whole number of bytes`);
    }
    if (!Number.isSafeInteger(pieceLength) || pieceLength < BLOCK_LENGTH) {
      throw new PantalaError(
        'invalid-argument',
        `piece length ${pieceLength} is below one block of ${BLOCK_LENGTH} bytes`,
      );
    }
    this.contentLength = contentLength;
    this.pieceLength = pieceLength;
    this.pieceCount = Math.ceil(contentLength / pieceLength);
    this.blocksPerPiece = Math.ceil(pieceLength / BLOCK_LENGTH);
    const lastPieceLength = contentLength - Math.max(0, this.pieceCount - 1) * pieceLength;
    this.blockCount =
      this.pieceCount === 0
        ? 0
        : (this.pieceCount - 1) * this.blocksPerPiece + Math.ceil(lastPieceLength / BLOCK_LENGTH);
  }

  pieceRange(piece: number): ByteRange {
    const start = piece * this.pieceLength;
    return { start, end: Math.min(start + this.pieceLength, this.contentLength) };
  }

  /** The blocks of a piece. */
  pieceBlocks(piece: number): BlockRun {
    const first = piece * this.blocksPerPiece;
    return { first, count: Math.min(this.blocksPerPiece, this.blockCount - first) };
  }

  pieceOfBlock(block: number): number {
    return Math.floor(block / this.blocksPerPiece);
  }

  blockRange(block: number): ByteRange {
    const piece = this.pieceOfBlock(block);
    const pieceRange = this.pieceRange(piece);
    const start = pieceRange.start + (block - piece * this.blocksPerPiece) * BLOCK_LENGTH;
    return { start, end: Math.min(start + BLOCK_LENGTH, pieceRange.end) };
  }

  /** The bytes of a run of blocks. */
  runRange(run: BlockRun): ByteRange {
    return { start: this.blockRange(run.first).start, end: this.blockRange(run.first + run.count - 1).end };
  }

  blockAt(offset: number): number {
    const piece = Math.floor(offset / this.pieceLength);
    return piece * this.blocksPerPiece + Math.floor((offset - piece * this.pieceLength) / BLOCK_LENGTH);
  }

  /** The smallest run of blocks that covers a non-empty range. */
  blocksOf(range: ByteRange): BlockRun {
    const first = this.blockAt(range.start);
    return { first, count: this.blockAt(range.end - 1) - first + 1 };
  }
}
