import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32, DIGEST_LENGTH, pieceDigest } from '@pantala/base';
import type { StoreEvent, TaskStore } from '@pantala/store';
import { describe, expect, test } from 'vitest';
import { content, digestsOf, held, put, putAll, scratch } from './fixture.ts';

/** What every store must do. `open` opens the store of a directory, also one that was closed before. */
export function storeConformance(name: string, open: (directory: string) => Promise<TaskStore>): void {
  describe(`${name}: contract`, () => {
    test('shows a block once it is written, and nothing else', async () => {
      using directory = scratch();
      await using store = await open(directory.path);
      const source = content(200_000);
      const task = await store.create(source.description);
      expect(store.get(source.description.id)).toBe(task);
      expect([held(task), task.complete, task.availableFrom(0), task.has({ start: 0, end: 1 })]).toEqual([
        [],
        false,
        0,
        false,
      ]);
      await put(task, source, { first: 2, count: 2 });
      expect(held(task)).toEqual([2, 3]);
      const { start, end } = source.geometry.runRange({ first: 2, count: 2 });
      expect(task.availableFrom(start + 7)).toBe(end);
      expect(task.availableFrom(end)).toBe(end);
      expect(task.has({ start, end })).toBe(true);
      expect(task.has({ start, end: end + 1 })).toBe(false);
      expect(
        (await task.read({ start: start + 3, end: end - 5 })).equals(source.bytes.subarray(start + 3, end - 5)),
      ).toBe(true);
      await expect(task.read({ start: start - 1, end })).rejects.toMatchObject({ code: 'failed-precondition' });
      expect(task.blockDigests({ first: 2, count: 2 })?.equals(digestsOf(source, { first: 2, count: 2 }))).toBe(true);
      expect(task.blockDigests({ first: 1, count: 2 })).toBeUndefined();
      expect(task.pieceDigest(0)).toBeUndefined();
      expect(store.usage).toEqual({ tasks: 1, bytes: end - start });
    });

    test('is complete with the last block, tells it once, and knows digests of pieces', async () => {
      using directory = scratch();
      await using store = await open(directory.path);
      const source = content(150_001);
      const task = await store.create(source.description);
      const events: StoreEvent[] = [];
      const subscription = task.subscribe((event) => events.push(event));
      await putAll(task, source);
      await putAll(task, source);
      expect(events.at(-1)).toEqual({ kind: 'complete' });
      expect(events.filter(({ kind }) => kind === 'blocks')).toHaveLength(source.geometry.pieceCount);
      expect([task.complete, task.availableFrom(5), task.blocks.count]).toEqual([
        true,
        150_001,
        source.geometry.blockCount,
      ]);
      expect(task.completedAt).toBeGreaterThanOrEqual(task.createdAt);
      for (let piece = 0; piece < source.geometry.pieceCount; piece++) {
        const { start, end } = source.geometry.pieceRange(piece);
        expect(await task.pieceCrc32(piece)).toBe(crc32(source.bytes.subarray(start, end)));
        const digests = digestsOf(source, source.geometry.pieceBlocks(piece));
        expect(task.pieceDigest(piece)?.equals(pieceDigest(digests))).toBe(true);
      }
      subscription[Symbol.dispose]();
      await store.void(source.description.id);
      expect(events.at(-1)).toEqual({ kind: 'complete' });
    });

    test('keeps provisional blocks from everybody until they are promoted', async () => {
      using directory = scratch();
      const source = content(100_000);
      {
        await using store = await open(directory.path);
        const task = await store.create(source.description);
        await put(task, source, { first: 0, count: 2 }, 'provisional');
        expect([held(task), task.provisional.count, task.has({ start: 0, end: 1 })]).toEqual([[], 2, false]);
        task.discardProvisional();
        expect([task.provisional.count, store.usage.bytes]).toEqual([0, 0]);
        await put(task, source, { first: 1, count: 2 }, 'provisional');
        await put(task, source, { first: 2, count: 1 });
        expect([held(task), task.provisional.count]).toEqual([[2], 1]);
        await put(task, source, { first: 3, count: 1 }, 'provisional');
      }
      await using store = await open(directory.path);
      const task = await store.create(source.description);
      expect([held(task), task.provisional.count]).toEqual([[2], 0]);
      await put(task, source, { first: 0, count: source.geometry.blockCount }, 'provisional');
      await task.promote();
      expect(task.complete).toBe(true);
      expect((await task.read({ start: 0, end: 100_000 })).equals(source.bytes)).toBe(true);
    });

    test('forgets what a void task held, serves it to nobody, and takes it anew', async () => {
      using directory = scratch();
      const wrong = content(100_000);
      const right = { ...content(100_000), description: wrong.description };
      {
        await using store = await open(directory.path);
        const task = await store.create(wrong.description);
        await putAll(task, wrong);
        using lease = task.lease();
        const events: string[] = [];
        task.subscribe(({ kind }) => events.push(kind));
        await store.void(wrong.description.id);
        expect(lease.fd).toBeGreaterThan(0);
        expect([events, held(task), task.complete, store.usage]).toEqual([['void'], [], false, { tasks: 1, bytes: 0 }]);
        await put(task, right, { first: 1, count: 1 });
      }
      await using store = await open(directory.path);
      const task = await store.create(wrong.description);
      expect(held(task)).toEqual([1]);
      await putAll(task, right);
      expect((await task.read({ start: 0, end: 100_000 })).equals(right.bytes)).toBe(true);
    });

    test('what is not to be trusted never gets in the way of what is', async () => {
      using directory = scratch();
      await using store = await open(directory.path);
      const right = content(2_000_000, 1_048_576);
      const wrong = { ...content(2_000_000, 1_048_576), description: right.description };
      const task = await store.create(right.description);
      const { blockCount } = right.geometry;
      const writes: Promise<void>[] = [];
      for (let first = 0; first < blockCount; first++) {
        const run = { first, count: 1 };
        const both = [put(task, wrong, run, 'provisional'), put(task, right, run)];
        writes.push(...both);
      }
      await Promise.all(writes);
      await task.promote();
      expect(task.complete).toBe(true);
      expect((await task.read({ start: 0, end: 2_000_000 })).equals(right.bytes)).toBe(true);
      expect(task.pieceDigest(0)?.equals(pieceDigest(digestsOf(right, right.geometry.pieceBlocks(0))))).toBe(true);
    });

    test('a write that was under way when everything became void shows nothing', async () => {
      using directory = scratch();
      await using store = await open(directory.path);
      const source = content(100_000);
      const task = await store.create(source.description);
      const writing = put(task, source, { first: 0, count: 1 });
      const voiding = store.void(source.description.id);
      await expect(writing).rejects.toMatchObject({ code: 'cancelled' });
      await voiding;
      expect(held(task)).toEqual([]);
      await putAll(task, source);
      expect((await task.read({ start: 0, end: 100_000 })).equals(source.bytes)).toBe(true);
    });

    test('a removed task is gone for good, but a lease still reads it', async () => {
      using directory = scratch();
      const source = content(50_000);
      {
        await using store = await open(directory.path);
        const task = await store.create(source.description);
        await putAll(task, source);
        using lease = task.lease();
        await store.remove(source.description.id);
        expect([store.get(source.description.id), store.usage]).toEqual([undefined, { tasks: 0, bytes: 0 }]);
        expect(readFileSync(lease.fd).equals(source.bytes)).toBe(true);
        const again = await store.create(source.description);
        expect(held(again)).toEqual([]);
        await store.remove(source.description.id);
      }
      await using store = await open(directory.path);
      expect([...store.tasks()]).toEqual([]);
    });

    test('refuses what cannot be right', async () => {
      using directory = scratch();
      await using store = await open(directory.path);
      const source = content(50_000);
      const task = await store.create(source.description);
      const invalid = expect.objectContaining({ code: 'invalid-argument' });
      await expect(store.create({ ...source.description, contentLength: 50_001 })).rejects.toMatchObject({
        code: 'failed-precondition',
      });
      await expect(store.create({ ...source.description, id: '../../etc/passwd' })).rejects.toEqual(invalid);
      await expect(
        store.create({ ...source.description, id: source.description.id.replace(/^./, '/') }),
      ).rejects.toEqual(invalid);
      await expect(store.create({ ...content(1).description, contentLength: -1 })).rejects.toEqual(invalid);
      const one = Buffer.alloc(16 * 1024);
      const digest = Buffer.alloc(DIGEST_LENGTH);
      await expect(task.write({ first: 3, count: 1 }, one, digest, 'checked')).rejects.toEqual(invalid);
      await expect(task.write({ first: 0, count: 1 }, one.subarray(1), digest, 'checked')).rejects.toEqual(invalid);
      await expect(task.write({ first: 0, count: 1 }, one, digest.subarray(1), 'checked')).rejects.toEqual(invalid);
      await expect(task.write({ first: 4, count: 1 }, one, digest, 'checked')).rejects.toEqual(invalid);
      await expect(task.copyTo(join(directory.path, 'out'), { overwrite: false })).rejects.toMatchObject({
        code: 'failed-precondition',
      });
      expect([held(task), store.usage.tasks]).toEqual([[], 1]);
    });

    test('content without bytes is complete at once, and can be had', async () => {
      using directory = scratch();
      await using store = await open(directory.path);
      const task = await store.create(content(0).description);
      expect(task.complete).toBe(true);
      expect(await task.read({ start: 0, end: 0 })).toHaveLength(0);
      await task.copyTo(join(directory.path, 'empty'), { overwrite: false });
      expect(readFileSync(join(directory.path, 'empty'))).toHaveLength(0);
    });

    test('copies are whole or not there, and overwrite only when told', async () => {
      using directory = scratch();
      await using store = await open(directory.path);
      const source = content(3_000_000);
      const task = await store.create(source.description);
      await putAll(task, source);
      const path = join(directory.path, 'out');
      await task.copyTo(path, { overwrite: false });
      expect(readFileSync(path).equals(source.bytes)).toBe(true);
      writeFileSync(path, 'mine');
      await expect(task.copyTo(path, { overwrite: false })).rejects.toMatchObject({ code: 'already-exists' });
      expect(readFileSync(path, 'utf8')).toBe('mine');
      await task.copyTo(path, { overwrite: true });
      expect(readFileSync(path).equals(source.bytes)).toBe(true);
      const other = join(directory.path, 'other');
      await expect(task.copyTo(other, { overwrite: false, signal: AbortSignal.abort() })).rejects.toMatchObject({
        code: 'cancelled',
      });
      expect(existsSync(other)).toBe(false);
      await expect(task.copyTo(join(directory.path, 'no', 'where'), { overwrite: false })).rejects.toMatchObject({
        code: 'not-found',
      });
    });

    test('descriptions and times outlive it', async () => {
      using directory = scratch();
      const source = content(10);
      const description = { ...source.description, digest: `sha256:${'0'.repeat(64)}`, tag: 't', application: 'ä' };
      let createdAt: number;
      let completedAt: number | undefined;
      {
        await using store = await open(directory.path);
        const task = await store.create(description);
        await putAll(task, source);
        await task.promote();
        ({ createdAt, completedAt } = task);
      }
      await using store = await open(directory.path);
      const task = store.get(description.id);
      expect(task?.description).toEqual(description);
      expect([task?.createdAt, task?.completedAt, task?.complete]).toEqual([createdAt, completedAt, true]);
    });
  });
}
