import { Bitmap } from '@pantala/base';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

const runWithin = (length: number) =>
  fc.tuple(fc.nat(length), fc.nat(length)).map(([a, b]) => ({ first: Math.min(a, b), count: Math.abs(a - b) }));

const history = fc.integer({ min: 0, max: 200 }).chain((length) =>
  fc.record({
    length: fc.constant(length),
    steps: fc.array(
      fc.oneof(
        fc.record({ kind: fc.constant('setRun' as const), run: runWithin(length) }),
        fc.record({ kind: fc.constant('clear' as const), run: runWithin(length) }),
      ),
      { maxLength: 12 },
    ),
    within: runWithin(length),
  }),
);

describe('Bitmap', () => {
  test('equals an array of booleans', () => {
    fc.assert(
      fc.property(history, ({ length, steps, within }) => {
        const bitmap = new Bitmap(length);
        const model = Array.from({ length }, () => false);
        for (const { kind, run } of steps) {
          const indexes = Array.from({ length: run.count }, (_, i) => run.first + i);
          if (kind === 'setRun') bitmap.setRun(run);
          else for (const index of indexes) bitmap.clear(index);
          for (const index of indexes) model[index] = kind === 'setRun';
        }
        expect(bitmap.count).toBe(model.filter(Boolean).length);
        expect(model.map((_, index) => bitmap.has(index))).toEqual(model);
        const end = within.first + within.count;
        expect(bitmap.hasAll(within)).toBe(model.slice(within.first, end).every(Boolean));
        for (const value of [true, false]) {
          const found = model.indexOf(value, within.first);
          expect(bitmap.next(value, within.first)).toBe(found < 0 ? length : found);
          expect(bitmap.next(value, within.first, end)).toBe(found < 0 ? end : Math.min(found, end));
          const listed = [...bitmap.runs(value, within)].flatMap((run) =>
            Array.from({ length: run.count }, (_, i) => run.first + i),
          );
          expect(listed).toEqual([...model.keys()].filter((i) => model[i] === value && i >= within.first && i < end));
        }
        const copy = Bitmap.fromBytes(bitmap.toBytes(), length);
        expect(copy.count).toBe(bitmap.count);
        expect([...copy.runs(true)]).toEqual([...bitmap.runs(true)]);
      }),
      { numRuns: 500 },
    );
  });

  test('runs are as long as they can be', () => {
    const bitmap = new Bitmap(40);
    bitmap.setRun({ first: 3, count: 20 });
    bitmap.setRun({ first: 30, count: 10 });
    expect([...bitmap.runs(true)]).toEqual([
      { first: 3, count: 20 },
      { first: 30, count: 10 },
    ]);
    expect([...bitmap.runs(false)]).toEqual([
      { first: 0, count: 3 },
      { first: 23, count: 7 },
    ]);
  });

  test('bits beyond its length are neither set nor held', () => {
    const bitmap = new Bitmap(10);
    expect(() => bitmap.set(10)).toThrowError(expect.objectContaining({ code: 'out-of-range' }));
    expect(() => bitmap.setRun({ first: 8, count: 3 })).toThrowError(expect.objectContaining({ code: 'out-of-range' }));
    expect(bitmap.count).toBe(0);
    bitmap.setRun({ first: 0, count: 10 });
    expect(bitmap.hasAll({ first: 9, count: 2 })).toBe(false);
    expect(bitmap.has(10)).toBe(false);
    const spare = Bitmap.fromBytes(Uint8Array.of(0xff, 0xff, 0xff), 10);
    expect(spare.count).toBe(10);
  });
});
