import {
  chmodSync,
  closeSync,
  openSync,
  readFileSync,
  renameSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { openStore, type StoredTask, type TaskStore } from '@pantala/store';
import { expect, test } from 'vitest';
import { type Content, content, held, putAll, scratch } from '../fixture.ts';

async function linked(store: TaskStore, source: Content, path: string): Promise<StoredTask> {
  const task = await store.create(source.description);
  await putAll(task, source);
  await task.linkTo(path);
  return task;
}

/** Changes one byte in the middle of a file, whatever its mode says. */
function tamper(path: string): void {
  chmodSync(path, 0o644);
  const fd = openSync(path, 'r+');
  writeSync(fd, Buffer.from([0]), 0, 1, 40_000);
  writeSync(fd, Buffer.from([1]), 0, 1, 40_001);
  closeSync(fd);
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

const source = content(200_000, 64 * 1024, 'linked');

test('a link is the same file, read-only, and served on, also after a restart', async () => {
  using directory = scratch();
  const path = join(directory.path, 'out');
  {
    await using store = await openStore({ directory: directory.path });
    const task = await linked(store, source, path);
    expect(readFileSync(path).equals(source.bytes)).toBe(true);
    expect(statSync(path).mode & 0o777).toBe(0o444);
    await task.linkTo(path);
    expect((await task.read({ start: 0, end: 200_000 })).equals(source.bytes)).toBe(true);
    writeFileSync(join(directory.path, 'taken'), 'x');
    await expect(task.linkTo(join(directory.path, 'taken'))).rejects.toMatchObject({ code: 'already-exists' });
    await expect(task.linkTo('/proc/out')).rejects.toMatchObject({ code: expect.stringMatching(/./) });
  }
  await using store = await openStore({ directory: directory.path });
  const task = store.get(source.description.id);
  await until(() => task?.complete === true);
  expect((await task?.read({ start: 0, end: 200_000 }))?.equals(source.bytes)).toBe(true);
});

test('a file that was changed through its link is dropped, and fetched anew into a file of its own', async () => {
  using directory = scratch();
  const path = join(directory.path, 'out');
  await using store = await openStore({ directory: directory.path });
  const task = await linked(store, source, path);
  tamper(path);
  await expect(task.read({ start: 0, end: 10 })).rejects.toMatchObject({ code: 'data-loss' });
  expect([held(task), task.complete]).toEqual([[], false]);
  await putAll(task, source);
  expect((await task.read({ start: 0, end: 200_000 })).equals(source.bytes)).toBe(true);
  expect(readFileSync(path).equals(source.bytes)).toBe(false);
});

test('a change that hides behind its old time is found by the digests', async () => {
  using directory = scratch();
  const path = join(directory.path, 'out');
  {
    await using store = await openStore({ directory: directory.path });
    await linked(store, source, path);
    // A time that utimes can set again exactly.
    utimesSync(path, 1_700_000_000, 1_700_000_000);
    const task = store.get(source.description.id) as StoredTask;
    expect(task.complete).toBe(false);
    await store.void(source.description.id);
    unlinkSync(path);
    await putAll(task, source);
    const { id } = source.description;
    utimesSync(join(directory.path, 'tasks', id.slice(0, 3), id), 1_700_000_000, 1_700_000_000);
    await task.linkTo(path);
    tamper(path);
    utimesSync(path, 1_700_000_000, 1_700_000_000);
    expect(() => task.lease()).toThrowError(expect.objectContaining({ code: 'failed-precondition' }));
    await until(() => store.usage.bytes === 0);
    expect([held(task), task.complete]).toEqual([[], false]);
    // What is fetched anew does not go into the file that is somebody else's too.
    await putAll(task, source);
    expect((await task.read({ start: 0, end: 200_000 })).equals(source.bytes)).toBe(true);
    expect(readFileSync(path).equals(source.bytes)).toBe(false);
  }
  await using store = await openStore({ directory: directory.path });
  expect(store.get(source.description.id)?.complete).toBe(true);
});

test('what is written while a linked file is checked waits for the outcome', async () => {
  using directory = scratch();
  const path = join(directory.path, 'out');
  await using store = await openStore({ directory: directory.path });
  const task = await linked(store, source, path);
  renameSync(path, join(directory.path, 'renamed'));
  store.get(source.description.id);
  const { mtimeNs } = statSync(join(directory.path, 'renamed'), { bigint: true });
  await putAll(task, source);
  expect(task.complete).toBe(true);
  expect(statSync(join(directory.path, 'renamed'), { bigint: true }).mtimeNs).toBe(mtimeNs);
});

test('renaming and removing the link costs a check, not the content', async () => {
  using directory = scratch();
  const path = join(directory.path, 'out');
  await using store = await openStore({ directory: directory.path });
  const task = await linked(store, source, path);
  renameSync(path, join(directory.path, 'renamed'));
  unlinkSync(join(directory.path, 'renamed'));
  store.get(source.description.id);
  await until(() => task.complete);
  expect((await task.read({ start: 0, end: 200_000 })).equals(source.bytes)).toBe(true);
});
