import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  copyFileSync,
  cpSync,
  openSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { lengthOf, sha256Hex } from '@pantala/base';
import { openStore } from '@pantala/store';
import { describe, expect, test } from 'vitest';
import { encodeHeader, FRAME_LENGTH, HEADER_LENGTH } from '../../src/journal-format.ts';
import { content, held, put, putAll, scratch } from '../fixture.ts';
import { KILLED_TASKS, killedBlock, killedTask } from '../kill-writer.ts';

const PANTALA_FULL = process.env.PANTALA_FULL === '1';
const KILLS = PANTALA_FULL ? 200 : 20;

/** Makes a store's journal look as if the machine had been started anew since. */
function pretendReboot(directory: string): void {
  const fd = openSync(join(directory, 'journal'), 'r+');
  writeSync(fd, encodeHeader(Buffer.alloc(16, 7)), 0, HEADER_LENGTH, 0);
  closeSync(fd);
}

/** Resolves when `condition` holds, which is looked at after each event of the task. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

test(
  `every block that was visible survives SIGKILL, and no other (${KILLS} kills)`,
  async () => {
    using directory = scratch();
    const said = new Map<number, Set<number>>();
    let blocksSeen = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      const script = join(import.meta.dirname, '..', 'kill-writer.ts');
      const child = spawn(process.execPath, [script, directory.path, String(kill * 7919 + 1)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const exited = once(child, 'exit');
      let remaining = 5 + ((kill * 61) % 300);
      for await (const line of createInterface({ input: child.stdout })) {
        const [what, index, first, count] = line.split(' ');
        const blocks = said.get(Number(index)) ?? new Set<number>();
        said.set(Number(index), blocks);
        if (what === 'void') blocks.clear();
        else for (let i = 0; i < Number(count); i++) blocks.add(Number(first) + i);
        if (remaining-- === 0) child.kill('SIGKILL');
      }
      expect((await exited)[1]).toBe('SIGKILL');
      await using store = await openStore({ directory: directory.path });
      let bytes = 0;
      for (let index = 0; index < KILLED_TASKS; index++) {
        const task = store.get(killedTask(index).id);
        if (task === undefined) {
          expect(said.get(index)).toBeUndefined();
          continue;
        }
        for (const block of said.get(index) ?? []) expect(task.blocks.has(block)).toBe(true);
        for (const block of held(task)) {
          const range = task.geometry.blockRange(block);
          expect((await task.read(range)).equals(killedBlock(index, block))).toBe(true);
          bytes += lengthOf(range);
          blocksSeen++;
        }
        said.set(index, new Set(held(task)));
      }
      expect(store.usage.bytes).toBe(bytes);
    }
    expect(blocksSeen).toBeGreaterThan(KILLS * 10);
  },
  KILLS * 10_000,
);

describe('a journal that ends anywhere', () => {
  test('is cut after its last whole record, and what that says is there', async () => {
    using directory = scratch();
    const sources = [content(100_000, 64 * 1024, 'x'), content(40_000, 64 * 1024, 'y')] as const;
    const journal = join(directory.path, 'journal');
    /** The journal's length after each step, and what is held of both tasks then. */
    const states: { length: number; held: (number[] | undefined)[] }[] = [];
    {
      await using store = await openStore({ directory: directory.path });
      const note = () => {
        states.push({
          length: statSync(journal).size,
          held: sources.map(({ description }) => {
            const task = store.get(description.id);
            return task === undefined ? undefined : held(task);
          }),
        });
      };
      note();
      const x = await store.create(sources[0].description);
      note();
      await put(x, sources[0], { first: 0, count: 2 });
      note();
      const y = await store.create(sources[1].description);
      note();
      await put(y, sources[1], { first: 1, count: 1 });
      note();
      await put(x, sources[0], { first: 5, count: 1 });
      note();
    }
    const whole = readFileSync(journal);
    const first = PANTALA_FULL ? HEADER_LENGTH : (states.at(-4)?.length as number);
    for (let length = first; length <= (states.at(-1)?.length as number); length++) {
      using copy = scratch();
      cpSync(directory.path, copy.path, { recursive: true });
      const path = join(copy.path, 'journal');
      truncateSync(path, length);
      // Half of the cuts are followed by what somebody else had written there before.
      if (length % 2 === 0) writeFileSync(path, Buffer.concat([whole.subarray(0, length), Buffer.alloc(50, 0xa5)]));
      const expected = states.findLast((state) => state.length <= length)?.held;
      await using store = await openStore({ directory: copy.path });
      const found = sources.map(({ description }) => {
        const task = store.get(description.id);
        return task === undefined ? undefined : held(task);
      });
      expect(found).toEqual(expected);
      // It goes on from there.
      const task = await store.create(sources[1].description);
      await putAll(task, sources[1]);
      await store[Symbol.asyncDispose]();
      await using again = await openStore({ directory: copy.path });
      expect(again.get(sources[1].description.id)?.complete).toBe(true);
    }
  });

  test('a flipped bit costs that record and those after it, never wrong blocks', async () => {
    using directory = scratch();
    const source = content(200_000, 64 * 1024);
    let end = 0;
    {
      await using store = await openStore({ directory: directory.path });
      const task = await store.create(source.description);
      for (let block = 0; block < source.geometry.blockCount; block += 2)
        await put(task, source, { first: block, count: 1 });
      // What follows is no record of blocks.
      end = statSync(join(directory.path, 'journal')).size;
    }
    const journal = readFileSync(join(directory.path, 'journal'));
    const firstRecord = HEADER_LENGTH + FRAME_LENGTH + journal.readUInt32LE(HEADER_LENGTH);
    for (let position = firstRecord; position < end; position += PANTALA_FULL ? 1 : 5) {
      using copy = scratch();
      cpSync(directory.path, copy.path, { recursive: true });
      const damaged = Buffer.from(journal);
      damaged[position] = (damaged[position] as number) ^ 0x10;
      writeFileSync(join(copy.path, 'journal'), damaged);
      await using store = await openStore({ directory: copy.path });
      const blocks = held(await store.create(source.description));
      expect(blocks).toEqual(blocks.map((_, i) => i * 2));
      expect(blocks.length).toBeLessThan(Math.ceil(source.geometry.blockCount / 2));
    }
  });
});

describe('after a restart of the machine', () => {
  test('blocks are shown again only when they have their digests', async () => {
    using directory = scratch();
    const whole = content(300_000, 64 * 1024, 'whole');
    const part = content(300_000, 64 * 1024, 'part');
    const lost = content(300_000, 64 * 1024, 'lost');
    {
      await using store = await openStore({ directory: directory.path });
      await putAll(await store.create(whole.description), whole);
      await put(await store.create(part.description), part, { first: 3, count: 7 });
      await putAll(await store.create(lost.description), lost);
    }
    const fileOf = ({ id }: { id: string }) => join(directory.path, 'tasks', id.slice(0, 3), id);
    // The file system lost some pages: zeros where blocks 4 and 9 were, and a whole file.
    const fd = openSync(fileOf(part.description), 'r+');
    for (const block of [4, 9]) writeSync(fd, Buffer.alloc(100), 0, 100, part.geometry.blockRange(block).start + 50);
    closeSync(fd);
    truncateSync(fileOf(lost.description), 1000);
    pretendReboot(directory.path);
    for (let round = 0; round < 2; round++) {
      await using store = await openStore({ directory: directory.path });
      const [first, second, third] = await Promise.all(
        [whole, part, lost].map(({ description }) => store.create(description)),
      );
      await until(() => first?.complete === true && second?.blocks.count === 5 && third?.blocks.count === 0);
      expect(held(second as never)).toEqual([3, 5, 6, 7, 8]);
      expect((await first?.read({ start: 0, end: 300_000 }))?.equals(whole.bytes)).toBe(true);
      await until(() => store.usage.bytes === 300_000 + 5 * 16_384);
    }
    await using store = await openStore({ directory: directory.path });
    const task = await store.create(part.description);
    await putAll(task, part);
    expect((await task.read({ start: 0, end: 300_000 })).equals(part.bytes)).toBe(true);
  });

  test('nothing is visible before it was checked, and new writes need not wait', async () => {
    using directory = scratch();
    const source = content(5_000_000, 1024 * 1024);
    {
      await using store = await openStore({ directory: directory.path });
      await putAll(await store.create(source.description), source);
    }
    const { id } = source.description;
    writeFileSync(join(directory.path, 'tasks', id.slice(0, 3), id), Buffer.alloc(5_000_000));
    pretendReboot(directory.path);
    await using store = await openStore({ directory: directory.path });
    const task = store.get(id);
    if (task === undefined) throw new Error('the task is gone');
    expect([task.complete, task.blocks.count]).toEqual([false, 0]);
    await putAll(task, source);
    expect(task.complete).toBe(true);
    expect((await task.read({ start: 0, end: 5_000_000 })).equals(source.bytes)).toBe(true);
    expect(store.usage.bytes).toBe(5_000_000);
  });
});

test('a file that vanished or shrank while the store was closed is not served', async () => {
  using directory = scratch();
  const sources = [content(100_000, 64 * 1024, 'short'), content(100_000, 64 * 1024, 'gone')] as const;
  {
    await using store = await openStore({ directory: directory.path });
    for (const source of sources) await putAll(await store.create(source.description), source);
  }
  const [short, gone] = sources.map(({ description: { id } }) => join(directory.path, 'tasks', id.slice(0, 3), id));
  truncateSync(short as string, 50);
  copyFileSync('/dev/null', `${gone}.moved`);
  await using store = await openStore({ directory: directory.path });
  const { unlinkSync } = await import('node:fs');
  unlinkSync(gone as string);
  for (const source of sources) {
    const task = await store.create(source.description);
    await expect(task.read({ start: 0, end: 10 })).rejects.toMatchObject({ code: 'data-loss' });
    expect([task.complete, held(task)]).toEqual([false, []]);
    await putAll(task, source);
    expect((await task.read({ start: 0, end: 100_000 })).equals(source.bytes)).toBe(true);
  }
});

test('files that no task knows are removed', async () => {
  using directory = scratch();
  {
    await using store = await openStore({ directory: directory.path });
    const source = content(1000);
    await putAll(await store.create(source.description), source);
  }
  const id = sha256Hex('orphan');
  const { mkdirSync, existsSync } = await import('node:fs');
  mkdirSync(join(directory.path, 'tasks', id.slice(0, 3)), { recursive: true });
  const orphan = join(directory.path, 'tasks', id.slice(0, 3), id);
  writeFileSync(orphan, 'x');
  writeFileSync(join(directory.path, 'trash', '1-1'), 'x');
  await using store = await openStore({ directory: directory.path });
  await until(() => !existsSync(orphan) && !existsSync(join(directory.path, 'trash', '1-1')));
  expect(store.get(content(1000).description.id)?.complete).toBe(true);
});

test('one directory is opened once, and the error names who has it', async () => {
  using directory = scratch();
  {
    await using store = await openStore({ directory: directory.path });
    expect(store.usage.tasks).toBe(0);
    await expect(openStore({ directory: directory.path })).rejects.toMatchObject({
      code: 'failed-precondition',
      message: expect.stringContaining(`process ${process.pid}`),
    });
  }
  // What a killed daemon leaves behind is no lock.
  writeFileSync(join(directory.path, 'lock'), '1\n');
  await using store = await openStore({ directory: directory.path });
  expect(store.usage.tasks).toBe(0);
});
