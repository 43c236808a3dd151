import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FilledBlocks } from '../../src/filled-blocks.ts';

const BLOCK = 4096;
const BLOCKS = 200;

test('a range is there when every block of it was added, seen from another thread’s view of the memory', () => {
  const run = fc.tuple(fc.nat(BLOCKS - 1), fc.integer({ min: 1, max: 90 }), fc.nat(BLOCK - 1));
  const question = fc.tuple(fc.nat(BLOCKS * BLOCK - 1), fc.integer({ min: 1, max: 100 * BLOCK }));
  fc.assert(
    fc.property(fc.array(run, { maxLength: 12 }), fc.array(question, { maxLength: 20 }), (runs, questions) => {
      const blocks = FilledBlocks.create(BLOCKS * BLOCK);
      const there = new Set<number>();
      for (const [first, count, lacking] of runs) {
        const last = Math.min(BLOCKS, first + count);
        // A chunk that ends within its last block.
        blocks.add({ start: first * BLOCK, end: last * BLOCK - lacking });
        for (let block = first; block < last; block++) there.add(block);
      }
      const seen = new FilledBlocks(blocks.memory);
      for (const [start, length] of questions) {
        const end = start + length;
        const wanted = Array.from(
          { length: Math.ceil(end / BLOCK) - Math.floor(start / BLOCK) },
          (_, at) => Math.floor(start / BLOCK) + at,
        );
        expect(seen.has({ start, end })).toBe(wanted.every((block) => there.has(block)));
      }
    }),
  );
});

test('what is revoked is nowhere any more', () => {
  const blocks = FilledBlocks.create(10 * BLOCK);
  blocks.add({ start: 0, end: 10 * BLOCK });
  const seen = new FilledBlocks(blocks.memory);
  expect(seen.has({ start: 0, end: BLOCK })).toBe(true);
  blocks.revoke();
  expect(seen.has({ start: 0, end: BLOCK })).toBe(false);
});
