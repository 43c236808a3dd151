import { BLOCK_LENGTH, type BlockRun, Geometry } from '@pantala/base';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Deal } from '../../src/selection/holdings.ts';
import { Selection } from '../../src/selection/selection.ts';
import { PATIENCE } from '../../src/selection/unit-choice.ts';
import { UNIT_BLOCKS, withinPieces } from '../../src/selection/units.ts';

const MEBI = 1024 * 1024;
const PEER = { seed: false, wholePieces: false };
const SEED = { seed: true, wholePieces: false };

function selectionOf(contentLength: number): { readonly selection: Selection; readonly all: BlockRun } {
  const geometry = new Geometry(contentLength, 4 * MEBI);
  const selection = new Selection(geometry, { host: 'test' });
  selection.needDigests(false);
  return { selection, all: { first: 0, count: geometry.blockCount } };
}

test('what readers wait for comes first and in order', () => {
  const { selection, all } = selectionOf(16 * MEBI);
  selection.addParent('a', PEER);
  selection.parentHolds('a', all);
  const [first, ...rest] = selection.next([{ first: 700, count: 8 }], all, 0);
  expect(first).toMatchObject({ run: { first: 700, count: 8 }, urgent: true });
  expect(rest.every(({ urgent }) => !urgent)).toBe(true);
});

test('the rarer unit is asked for first', () => {
  const { selection, all } = selectionOf(MEBI);
  for (const id of ['a', 'b', 'c']) selection.addParent(id, PEER);
  for (const id of ['a', 'b', 'c']) selection.parentHolds(id, { first: 0, count: 3 * UNIT_BLOCKS });
  selection.parentHolds('a', { first: 3 * UNIT_BLOCKS, count: UNIT_BLOCKS });
  selection.setBudget('a', UNIT_BLOCKS * BLOCK_LENGTH);
  const ofA = selection.next([], all, 0).filter(({ parent }) => parent === 'a');
  expect(ofA.map(({ run }) => run)).toEqual([{ first: 3 * UNIT_BLOCKS, count: UNIT_BLOCKS }]);
});

test('units dealt to us go first; those of others wait until nothing better is left and patience is over', () => {
  const { selection, all } = selectionOf(MEBI);
  selection.addParent('s', SEED);
  selection.parentHolds('s', all);
  selection.parentDeals('s', { first: 0, count: 2 * UNIT_BLOCKS }, Deal.deferred);
  selection.parentDeals('s', { first: 2 * UNIT_BLOCKS, count: 2 * UNIT_BLOCKS }, Deal.assigned);
  const first = selection.next([], all, 1000);
  expect(first.map(({ run }) => run)).toEqual([{ first: 2 * UNIT_BLOCKS, count: 2 * UNIT_BLOCKS }]);
  for (const { id, run } of first) {
    selection.held(run);
    selection.ended(id);
  }
  expect(selection.next([], all, 1000 + PATIENCE - 100)).toEqual([]);
  const late = selection.next([], all, 1000 + PATIENCE);
  expect(late.map(({ run }) => run)).toEqual([{ first: 0, count: 2 * UNIT_BLOCKS }]);
});

test('a seed’s first units are left to those whom they were dealt to, also by who has had nothing better yet', () => {
  const { selection, all } = selectionOf(MEBI);
  selection.addParent('s', SEED);
  const first = { first: 0, count: UNIT_BLOCKS };
  selection.parentHolds('s', first);
  selection.parentDeals('s', first, Deal.deferred);
  expect(selection.next([], all, 1000)).toEqual([]);
  expect(selection.next([], all, 1000 + PATIENCE - 1)).toEqual([]);
  expect(selection.next([], all, 1000 + 2 * PATIENCE).map(({ run }) => run)).toEqual([first]);
});

test('blocks without a digest are not asked for where digests are needed', () => {
  const { selection, all } = selectionOf(MEBI);
  selection.needDigests(true);
  selection.addParent('a', PEER);
  selection.parentHolds('a', all);
  expect(selection.next([{ first: 0, count: 4 }], all, 0)).toEqual([]);
  selection.checkable({ first: 0, count: UNIT_BLOCKS });
  expect(selection.next([], all, 0).map(({ run }) => run)).toEqual([{ first: 0, count: UNIT_BLOCKS }]);
});

test('the last requests are given to a second parent when the first is slow', () => {
  const { selection, all } = selectionOf(UNIT_BLOCKS * BLOCK_LENGTH);
  selection.addParent('a', PEER);
  selection.parentHolds('a', all);
  expect(selection.next([], all, 0)).toHaveLength(1);
  selection.addParent('b', PEER);
  selection.parentHolds('b', all);
  expect(selection.next([], all, 10)).toEqual([]);
  expect(selection.next([], all, 10_000)).toMatchObject([{ parent: 'b', run: all }]);
  expect(selection.next([], all, 20_000)).toEqual([]);
});

test('a run is cut at pieces and at the longest length, without gaps', () => {
  const geometry = new Geometry(10 * MEBI + 5, 4 * MEBI + 3 * BLOCK_LENGTH);
  fc.assert(
    fc.property(
      fc.nat(geometry.blockCount - 1),
      fc.integer({ min: 1, max: 700 }),
      fc.integer({ min: 1, max: 80 }),
      (first, length, longest) => {
        const count = Math.min(length, geometry.blockCount - first);
        let next = first;
        for (const part of withinPieces(geometry, { first, count }, longest)) {
          expect(part.first).toBe(next);
          expect(part.count).toBeLessThanOrEqual(longest);
          expect(geometry.pieceOfBlock(part.first)).toBe(geometry.pieceOfBlock(part.first + part.count - 1));
          next += part.count;
        }
        expect(next).toBe(first + count);
      },
    ),
  );
});

const event = fc.oneof(
  fc.record({
    kind: fc.constant('holds' as const),
    parent: fc.nat(3),
    first: fc.nat(400),
    count: fc.integer({ min: 1, max: 200 }),
  }),
  fc.record({ kind: fc.constant('next' as const), urgent: fc.nat(400) }),
  fc.record({ kind: fc.constant('answer' as const), pick: fc.nat(50), whole: fc.boolean() }),
  fc.record({ kind: fc.constant('lose' as const), parent: fc.nat(3) }),
);

test('no block is asked of two at once, none that is held, none of a parent that lacks it; all arrives in the end', () => {
  fc.assert(
    fc.property(fc.array(event, { maxLength: 60 }), (events) => {
      const { selection, all } = selectionOf(7 * MEBI + 1);
      const holds = new Map<string, Set<number>>();
      const held = new Set<number>();
      const out = new Map<number, BlockRun>();
      const blocks = (run: BlockRun): number[] => Array.from({ length: run.count }, (_, at) => run.first + at);
      const ask = (urgent: BlockRun[], now: number): number => {
        const requests = selection.next(urgent, all, now);
        for (const { id, parent, run } of requests) {
          const busy = new Set([...out.values()].flatMap(blocks));
          for (const block of blocks(run)) {
            expect(held.has(block)).toBe(false);
            expect(busy.has(block)).toBe(false);
            expect(holds.get(parent)?.has(block)).toBe(true);
          }
          out.set(id, run);
        }
        return requests.length;
      };
      const answer = (id: number, run: BlockRun, whole: boolean): void => {
        const got = whole ? run : { first: run.first, count: Math.floor(run.count / 2) };
        if (got.count > 0) selection.held(got);
        for (const block of blocks(got)) held.add(block);
        selection.ended(id);
        out.delete(id);
      };
      for (const step of events) {
        if (step.kind === 'holds') {
          const id = `p${step.parent}`;
          selection.addParent(id, PEER);
          const run = { first: step.first, count: Math.min(step.count, all.count - step.first) };
          selection.parentHolds(id, run);
          const set = holds.get(id) ?? new Set();
          holds.set(id, set);
          for (const block of blocks(run)) set.add(block);
        } else if (step.kind === 'next') {
          ask([{ first: step.urgent, count: 3 }], 0);
        } else if (step.kind === 'answer') {
          const [id, run] = [...out][step.pick % Math.max(1, out.size)] ?? [];
          if (id !== undefined && run !== undefined) answer(id, run, step.whole);
        } else {
          selection.removeParent(`p${step.parent}`);
          holds.delete(`p${step.parent}`);
        }
      }
      selection.addParent('last', PEER);
      selection.parentHolds('last', all);
      holds.set('last', new Set(blocks(all)));
      for (const [id, run] of Array.from(out)) answer(id, run, false);
      while (ask([], 0) > 0) for (const [id, run] of Array.from(out)) answer(id, run, true);
      expect(held.size).toBe(all.count);
    }),
    { numRuns: 60 },
  );
});
