import { openStore, type StoredTask, type TaskStore } from '@pantala/store';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Content, content, held, put, scratch } from '../fixture.ts';

const PIECE_LENGTH = 40_000;
const SOURCES = [content(170_000, PIECE_LENGTH, 'a'), content(33_000, PIECE_LENGTH, 'b')];

const step = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      task: fc.nat(1),
      first: fc.nat(14),
      count: fc.integer({ min: 1, max: 6 }),
      trust: fc.constantFrom('checked' as const, 'checked' as const, 'provisional' as const),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('reopen' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constantFrom('void' as const, 'remove' as const, 'promote' as const, 'discard' as const),
      task: fc.nat(1),
    }),
  },
);

interface Model {
  held: Set<number>;
  provisional: Set<number>;
}

/** What readers see is what the model says, and it has the right bytes. */
async function compare(task: StoredTask, source: Content, model: Model): Promise<void> {
  const { geometry, bytes } = source;
  expect(held(task)).toEqual([...model.held].sort((a, b) => a - b));
  expect(task.provisional.count).toBe(model.provisional.size);
  expect(task.complete).toBe(model.held.size === geometry.blockCount);
  for (let block = 0; block < geometry.blockCount; block++) {
    const range = geometry.blockRange(block);
    expect(task.has(range)).toBe(model.held.has(block));
    let end = block;
    while (model.held.has(end)) end++;
    const available = end === block ? range.start : geometry.blockRange(end - 1).end;
    expect(task.availableFrom(range.start)).toBe(available);
    if (model.held.has(block))
      expect((await task.read(range)).equals(bytes.subarray(range.start, range.end))).toBe(true);
  }
}

test('any history of writes at once, voids, removals and reopenings equals its model', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
      using directory = scratch();
      const open = () => openStore({ directory: directory.path, maxOpenTasks: 1 });
      let store: TaskStore = await open();
      const models = new Map<number, Model>();
      const modelOf = async (index: number): Promise<[StoredTask, Content, Model]> => {
        const source = SOURCES[index] as Content;
        const model = models.get(index) ?? { held: new Set<number>(), provisional: new Set<number>() };
        models.set(index, model);
        return [await store.create(source.description), source, model];
      };
      let writes: Promise<void>[] = [];
      const settle = async () => {
        await Promise.all(writes);
        writes = [];
      };
      try {
        for (const action of steps) {
          if (action.kind !== 'write') await settle();
          if (action.kind === 'reopen') {
            await store[Symbol.asyncDispose]();
            store = await open();
            for (const model of models.values()) model.provisional.clear();
            continue;
          }
          const [task, source, model] = await modelOf(action.task);
          switch (action.kind) {
            case 'write': {
              // Writes of one kind run at once; an order between the two kinds needs the first to be done.
              if (action.trust === 'provisional') await settle();
              const first = Math.min(action.first, source.geometry.blockCount - 1);
              const run = { first, count: Math.min(action.count, source.geometry.blockCount - first) };
              writes.push(put(task, source, run, action.trust));
              if (action.trust === 'provisional') await settle();
              for (let block = run.first; block < run.first + run.count; block++) {
                if (action.trust === 'checked') {
                  model.held.add(block);
                  model.provisional.delete(block);
                } else if (!model.held.has(block)) model.provisional.add(block);
              }
              break;
            }
            case 'void':
              await store.void(task.description.id);
              models.delete(action.task);
              break;
            case 'remove':
              await store.remove(task.description.id);
              models.delete(action.task);
              break;
            case 'promote':
              await task.promote();
              for (const block of model.provisional) model.held.add(block);
              model.provisional.clear();
              break;
            case 'discard':
              task.discardProvisional();
              model.provisional.clear();
          }
        }
        await settle();
        let bytes = 0;
        for (const [index, model] of models) {
          const source = SOURCES[index] as Content;
          await compare(await store.create(source.description), source, model);
          for (const block of [...model.held, ...model.provisional]) {
            const { start, end } = source.geometry.blockRange(block);
            bytes += end - start;
          }
        }
        expect(store.usage.bytes).toBe(bytes);
      } finally {
        await store[Symbol.asyncDispose]();
      }
    }),
    { numRuns: 150 },
  );
});
