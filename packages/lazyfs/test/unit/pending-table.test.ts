import { closeSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { MAX_PENDING, PendingTable } from '../../src/pending/pending-table.ts';

test('another table over the same memory has what was added and not freed, whatever the order', () => {
  const step = fc.oneof(fc.uint8Array({ minLength: 1, maxLength: 124 }), fc.nat(200));
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const fd = PendingTable.create();
      try {
        const table = new PendingTable(fd);
        const expected = new Map<number, Uint8Array>();
        for (const each of steps) {
          if (typeof each !== 'number') expected.set(table.add(each), each);
          else {
            const slot = [...expected.keys()][each % Math.max(1, expected.size)];
            if (slot === undefined) continue;
            table.free(slot);
            expected.delete(slot);
          }
        }
        expect(table.count).toBe(expected.size);
        const other = new PendingTable(fd);
        expect(new Map(other.leftOver().map(({ slot, record }) => [slot, record]))).toEqual(expected);
        expect(other.count).toBe(expected.size);
      } finally {
        closeSync(fd);
      }
    }),
    { numRuns: 30 },
  );
});

test('it takes as many as it says, and has room again after one is freed', () => {
  const fd = PendingTable.create();
  const table = new PendingTable(fd);
  for (let each = 0; each < MAX_PENDING; each++) table.add(Uint8Array.of(1));
  expect(() => table.add(Uint8Array.of(1))).toThrow(/full/);
  table.free(17);
  expect(table.add(Uint8Array.of(2))).toBe(17);
  expect(() => table.add(new Uint8Array(125))).toThrow(/does not fit/);
  closeSync(fd);
});
