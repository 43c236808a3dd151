import { readFileSync } from 'node:fs';
import { link, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { openStore, type TaskStore } from '@pantala/store';
import { expect, test } from 'vitest';
import { type Content, content, put, putAll, scratch } from '../fixture.ts';

const SOURCES = Array.from({ length: 8 }, (_, i) => content(100_000, 64 * 1024, `evicted ${i}`));
const NEVER = 2 ** 31;

async function nextTurn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
}

/** Times of use are milliseconds: two uses are told apart when the clock has moved on in between. */
async function clockMoved(): Promise<void> {
  for (const start = Date.now(); Date.now() === start; ) await nextTurn();
}

async function fill(store: TaskStore, sources: readonly Content[] = SOURCES): Promise<void> {
  for (const source of sources) {
    await putAll(await store.create(source.description), source);
    await clockMoved();
  }
}

function kept(store: TaskStore): number[] {
  return SOURCES.flatMap(({ description }, i) => (store.get(description.id) === undefined ? [] : [i]));
}

test('a full disk loses what was used least recently, down to the low mark, and nothing that is in use', async () => {
  using directory = scratch();
  {
    await using store = await openStore({ directory: directory.path, collectInterval: NEVER });
    await fill(store);
    await store.get((SOURCES[1] as Content).description.id)?.read({ start: 0, end: 1 });
  }
  const evicted: string[] = [];
  await using store = await openStore(
    {
      directory: directory.path,
      collectInterval: 5,
      diskThreshold: 1_000_000,
      diskHighThresholdPercent: 80,
      diskLowThresholdPercent: 50,
    },
    { evicted: (taskId) => evicted.push(taskId) },
  );
  using lease = store.get((SOURCES[2] as Content).description.id)?.lease();
  while (store.usage.bytes >= 800_000) await nextTurn();
  while (store.usage.bytes > 500_000) await nextTurn();
  // 0 was used least recently, 1 was read later, 2 is leased.
  expect(kept(store)).toEqual([1, 2, 5, 6, 7]);
  expect(evicted).toEqual([0, 3, 4].map((i) => (SOURCES[i] as Content).description.id));
  expect(store.usage).toEqual({ tasks: 5, bytes: 500_000 });
  expect(readFileSync(lease?.fd as number).equals((SOURCES[2] as Content).bytes)).toBe(true);
});

test('tasks go when they were not used for their time to live, unless somebody reads or fetches them', async () => {
  using directory = scratch();
  await using store = await openStore({ directory: directory.path, collectInterval: 5, taskTimeToLive: 0 });
  const [leased, watched, idle] = SOURCES as [Content, Content, Content];
  const lease = (await store.create(leased.description)).lease();
  const subscription = (await store.create(watched.description)).subscribe(() => {});
  await store.create(idle.description);
  while (kept(store).length > 2) await nextTurn();
  await clockMoved();
  expect(kept(store)).toEqual([0, 1]);
  lease[Symbol.dispose]();
  subscription[Symbol.dispose]();
  while (store.usage.tasks > 0) await nextTurn();
});

test('what a hard link keeps on the disk is not evicted for room, for that would free none', async () => {
  using directory = scratch();
  await using store = await openStore({
    directory: directory.path,
    collectInterval: 5,
    diskThreshold: 1_000_000,
    diskHighThresholdPercent: 70,
    diskLowThresholdPercent: 50,
  });
  const [first, ...others] = SOURCES as [Content, ...Content[]];
  await fill(store, [first]);
  const { id } = first.description;
  const name = join(directory.path, 'name');
  await link(join(directory.path, 'tasks', id.slice(0, 3), id), name);
  await clockMoved();
  await fill(store, others.slice(0, 6));
  while (store.usage.bytes > 500_000) await nextTurn();
  expect(kept(store)).toContain(0);
  expect(kept(store)).not.toContain(1);
  await unlink(name);
});

test('an incomplete task that is being fetched is spared', async () => {
  using directory = scratch();
  await using store = await openStore({
    directory: directory.path,
    collectInterval: 5,
    diskThreshold: 300_000,
    // Reached with the last block of the last task alone: one that is still being filled would be spared as well.
    diskHighThresholdPercent: 82.8,
    diskLowThresholdPercent: 10,
  });
  const [fetched, ...others] = SOURCES as [Content, ...Content[]];
  await put(await store.create(fetched.description), fetched, { first: 0, count: 3 });
  await clockMoved();
  await fill(store, others.slice(0, 2));
  while (store.usage.tasks > 1) await nextTurn();
  expect(kept(store)).toEqual([0]);
});

test('thresholds that make no sense are refused', async () => {
  using directory = scratch();
  for (const wrong of [{ diskHighThresholdPercent: 101 }, { diskLowThresholdPercent: 90 }, { taskTimeToLive: -1 }]) {
    await expect(openStore({ directory: directory.path, ...wrong })).rejects.toMatchObject({
      code: 'invalid-argument',
    });
  }
});
