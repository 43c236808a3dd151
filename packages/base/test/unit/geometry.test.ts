import { BLOCK_LENGTH, defaultPieceLength, Geometry, MAX_PIECE_LENGTH, MIN_PIECE_LENGTH } from '@pantala/base';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

const shape = fc.record({
  contentLength: fc.oneof(fc.nat(20), fc.nat(2_000_000)),
  pieceLength: fc.oneof(fc.constant(BLOCK_LENGTH), fc.integer({ min: BLOCK_LENGTH, max: 200_000 })),
});

describe('Geometry', () => {
  test('blocks and pieces each cover the content without gap or overlap, and no block crosses a piece', () => {
    fc.assert(
      fc.property(shape, ({ contentLength, pieceLength }) => {
        const geometry = new Geometry(contentLength, pieceLength);
        let offset = 0;
        for (let block = 0; block < geometry.blockCount; block++) {
          const range = geometry.blockRange(block);
          expect(range.start).toBe(offset);
          expect(range.end).toBeGreaterThan(range.start);
          expect(range.end - range.start).toBeLessThanOrEqual(BLOCK_LENGTH);
          const piece = geometry.pieceRange(geometry.pieceOfBlock(block));
          expect(range.start).toBeGreaterThanOrEqual(piece.start);
          expect(range.end).toBeLessThanOrEqual(piece.end);
          expect(geometry.blockAt(range.start)).toBe(block);
          expect(geometry.blockAt(range.end - 1)).toBe(block);
          offset = range.end;
        }
        expect(offset).toBe(contentLength);
        let blocks = 0;
        for (let piece = 0; piece < geometry.pieceCount; piece++) {
          const run = geometry.pieceBlocks(piece);
          expect(run.first).toBe(blocks);
          expect(geometry.runRange(run)).toEqual(geometry.pieceRange(piece));
          expect(geometry.blocksOf(geometry.pieceRange(piece))).toEqual(run);
          blocks += run.count;
        }
        expect(blocks).toBe(geometry.blockCount);
      }),
    );
  });

  test('the piece length is a power of two within bounds and at most 500 pieces where the bounds allow it', () => {
    expect(defaultPieceLength(0)).toBe(MIN_PIECE_LENGTH);
    expect(defaultPieceLength(2000 * 1024 * 1024)).toBe(MIN_PIECE_LENGTH);
    expect(defaultPieceLength(10 * 1024 ** 3)).toBe(32 * 1024 * 1024);
    expect(defaultPieceLength(1024 ** 4)).toBe(MAX_PIECE_LENGTH);
  });

  test('lengths that are none are refused', () => {
    for (const [content, piece] of [
      [-1, MIN_PIECE_LENGTH],
      [0.5, MIN_PIECE_LENGTH],
      [Number.MAX_SAFE_INTEGER + 1, MIN_PIECE_LENGTH],
      [1, BLOCK_LENGTH - 1],
      [1, Number.NaN],
    ] as const) {
      expect(() => new Geometry(content, piece)).toThrowError(expect.objectContaining({ code: 'invalid-argument' }));
    }
  });
});
