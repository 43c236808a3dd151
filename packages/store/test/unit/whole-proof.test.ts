import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { openStore, type StoredTask, type TaskStore } from '@pantala/store';
import { expect, test } from 'vitest';
import { held, put, putAll, scratch } from '../fixture.ts';
import { finishedContent } from '../kill-finisher.ts';

const RIGHT = finishedContent(true);
const WRONG = finishedContent(false);
const BLOCKS = RIGHT.geometry.blockCount;

/** A process stores both contents and is killed before anybody has compared them with their digests. */
async function killedAfterLastBlock(directory: string, ...args: readonly string[]): Promise<void> {
  const script = join(import.meta.dirname, '..', 'kill-finisher.ts');
  const child = spawn(process.execPath, [script, directory, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const exited = once(child, 'exit');
  for await (const line of createInterface({ input: child.stdout })) if (line === 'stored') child.kill('SIGKILL');
  expect((await exited)[1]).toBe('SIGKILL');
}

function taskOf(store: TaskStore, { description }: typeof RIGHT): StoredTask {
  const task = store.get(description.id);
  if (task === undefined) throw new Error('the task is gone');
  return task;
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

test('killed after the last block: nobody has everything before the whole was compared with its digest', async () => {
  using directory = scratch();
  await killedAfterLastBlock(directory.path);
  await using store = await openStore({ directory: directory.path });
  const [right, wrong] = [taskOf(store, RIGHT), taskOf(store, WRONG)];
  for (const task of [right, wrong]) {
    expect([task.complete, task.blocks.count, task.blocks.has(BLOCKS - 1)]).toEqual([false, BLOCKS - 1, false]);
  }
  let wrongSeen = 0;
  wrong.subscribe(() => {
    wrongSeen = Math.max(wrongSeen, wrong.blocks.count);
  });
  await until(() => right.complete && wrong.blocks.count === 0);
  expect((await right.read({ start: 0, end: RIGHT.bytes.length })).equals(RIGHT.bytes)).toBe(true);
  expect([wrong.complete, wrongSeen]).toEqual([false, 0]);
  expect(store.usage).toEqual({ tasks: 2, bytes: RIGHT.bytes.length });
});

test('what was found right once is complete at once after the next start', async () => {
  using directory = scratch();
  await killedAfterLastBlock(directory.path);
  {
    await using store = await openStore({ directory: directory.path });
    const task = taskOf(store, RIGHT);
    await until(() => task.complete);
  }
  await using store = await openStore({ directory: directory.path });
  expect(taskOf(store, RIGHT).complete).toBe(true);
});

test('killed after the comparison: complete at once', async () => {
  using directory = scratch();
  await killedAfterLastBlock(directory.path, 'promote');
  await using store = await openStore({ directory: directory.path });
  expect(taskOf(store, RIGHT).complete).toBe(true);
  expect(taskOf(store, WRONG).complete).toBe(false);
});

test('who brings the last block again need not wait, and says itself that the whole is right', async () => {
  using directory = scratch();
  await killedAfterLastBlock(directory.path);
  await using store = await openStore({ directory: directory.path });
  const task = taskOf(store, RIGHT);
  await put(task, RIGHT, { first: BLOCKS - 1, count: 1 });
  expect(task.complete).toBe(true);
  await task.promote();
  await store[Symbol.asyncDispose]();
  await using again = await openStore({ directory: directory.path });
  expect(taskOf(again, RIGHT).complete).toBe(true);
});

test('a block damaged at rest costs itself alone, and the whole is compared once it is there again', async () => {
  using directory = scratch();
  await killedAfterLastBlock(directory.path);
  const { id } = RIGHT.description;
  const fd = openSync(join(directory.path, 'tasks', id.slice(0, 3), id), 'r+');
  writeSync(fd, 'damage', RIGHT.geometry.blockRange(BLOCKS - 1).start);
  closeSync(fd);
  await using store = await openStore({ directory: directory.path });
  const task = taskOf(store, RIGHT);
  await until(() => store.usage.bytes < 2 * RIGHT.bytes.length - 1);
  await until(() => taskOf(store, WRONG).blocks.count === 0);
  expect(held(task)).toHaveLength(BLOCKS - 1);
  await putAll(task, RIGHT);
  expect(task.complete).toBe(true);
});

test('a comparison that was given up is made by the store', async () => {
  using directory = scratch();
  await using store = await openStore({ directory: directory.path });
  const [right, wrong] = await Promise.all([RIGHT, WRONG].map(({ description }) => store.create(description)));
  if (right === undefined || wrong === undefined) throw new Error('two tasks were created');
  await Promise.all([putAll(right, RIGHT), putAll(wrong, WRONG)]);
  for (const task of [right, wrong]) {
    expect(task.complete).toBe(true);
    task.recheck();
    expect([task.complete, task.blocks.count]).toEqual([false, BLOCKS - 1]);
  }
  await until(() => right.complete && wrong.blocks.count === 0);
  right.recheck();
  expect(right.complete).toBe(true);
});
