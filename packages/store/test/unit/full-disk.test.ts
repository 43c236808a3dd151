import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PantalaError } from '@pantala/base';
import { openStore } from '@pantala/store';
import { describe, expect, test } from 'vitest';
import { type Content, content, held, put, putAll, scratch } from '../fixture.ts';

const MIB = 1024 * 1024;
const isRoot = process.getuid?.() === 0;

/** A file system of its own, of a certain size. */
function mounted(kind: 'tmpfs' | 'btrfs', bytes: number): { readonly path: string } & Disposable {
  const directory = scratch();
  const path = join(directory.path, 'mount');
  mkdirSync(path);
  if (kind === 'tmpfs') execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${bytes}`, 'tmpfs', path]);
  else {
    const image = join(directory.path, 'image');
    writeFileSync(image, '');
    execFileSync('truncate', ['-s', String(bytes), image]);
    execFileSync(`mkfs.${kind}`, ['-q', image]);
    execFileSync('mount', ['-o', 'loop', image, path]);
  }
  return {
    path,
    [Symbol.dispose]() {
      execFileSync('umount', [path]);
      directory[Symbol.dispose]();
    },
  };
}

function canMount(kind: 'tmpfs' | 'btrfs'): boolean {
  try {
    mounted(kind, 128 * MIB)[Symbol.dispose]();
    return true;
  } catch {
    return false;
  }
}

describe.skipIf(!isRoot || !canMount('tmpfs'))('a full disk (needs root to mount a tmpfs)', () => {
  const fillDisk = async (error: (source: Content) => Promise<PantalaError | undefined>, most: number) => {
    for (let i = 0; i < most; i++) {
      const failed = await error(content(MIB / 2, 256 * 1024, `full ${i}`));
      if (failed !== undefined) return failed;
    }
    return undefined;
  };

  test('makes room by evicting what was used least recently', async () => {
    using disk = mounted('tmpfs', 4 * MIB);
    // Whatever the marks say: the file system is what is full.
    await using store = await openStore({ directory: disk.path, diskThreshold: 1024 * MIB });
    const failed = await fillDisk(async (source) => {
      await putAll(await store.create(source.description), source);
      return undefined;
    }, 20);
    expect(failed).toBeUndefined();
    expect(store.usage.bytes).toBeLessThanOrEqual(4 * MIB);
    const last = content(MIB / 2, 256 * 1024, 'full 19').description.id;
    expect(store.get(last)?.complete).toBe(true);
  });

  test('fails the write with a clear error when nothing can go, leaves what is held right, and recovers', async () => {
    using disk = mounted('tmpfs', 4 * MIB);
    const ballast = join(disk.path, 'ballast');
    const source = content(4 * MIB, MIB, 'too large');
    {
      await using store = await openStore({ directory: disk.path });
      const task = await store.create(source.description);
      using lease = task.lease();
      writeFileSync(ballast, Buffer.alloc(2 * MIB));
      const failed = await putAll(task, source).catch((error: unknown) => error);
      expect(failed).toMatchObject({ code: 'disk-full' });
      // Not even the journal has room now.
      const { bavail, bsize } = statfsSync(disk.path);
      writeFileSync(join(disk.path, 'rest'), Buffer.alloc(bavail * bsize));
      const before = held(task);
      expect(before.length).toBeGreaterThan(0);
      for (const other of [content(5, MIB, 'small'), content(6, MIB, 'other')]) {
        await expect(store.create(other.description).then((t) => putAll(t, other))).rejects.toMatchObject({
          code: 'disk-full',
        });
      }
      expect(held(task)).toEqual(before);
      for (const block of before) {
        const { start, end } = source.geometry.blockRange(block);
        expect((await task.read({ start, end })).equals(source.bytes.subarray(start, end))).toBe(true);
      }
      expect(lease.fd).toBeGreaterThan(0);
      rmSync(ballast);
      const next = before.length;
      await put(task, source, { first: next, count: 1 });
      expect(held(task)).toEqual([...before, next]);
    }
    rmSync(join(disk.path, 'rest'));
    await using store = await openStore({ directory: disk.path });
    const task = await store.create(source.description);
    for (const block of held(task)) {
      const { start, end } = source.geometry.blockRange(block);
      expect((await task.read({ start, end })).equals(source.bytes.subarray(start, end))).toBe(true);
    }
    expect(held(task).length).toBeGreaterThan(1);
  });

  test('what became void while the journal had no room is void after a restart too', async () => {
    using disk = mounted('tmpfs', 4 * MIB);
    const wrong = content(MIB, MIB, 'void');
    const right = { ...content(MIB, MIB, 'void'), description: wrong.description };
    {
      await using store = await openStore({ directory: disk.path });
      const task = await store.create(wrong.description);
      await putAll(task, wrong);
      using lease = task.lease();
      const { bavail, bsize } = statfsSync(disk.path);
      // As full as it gets: the last page of the journal is filled up by records too.
      writeFileSync(join(disk.path, 'rest'), Buffer.alloc(bavail * bsize));
      await expect(
        (async () => {
          for (;;) await store.create(content(1, MIB, `filler ${store.usage.tasks}`).description);
        })(),
      ).rejects.toMatchObject({ code: 'disk-full' });
      await store.void(wrong.description.id);
      await expect(putAll(task, right)).rejects.toMatchObject({ code: 'disk-full' });
      expect(readFileSync(lease.fd)).toHaveLength(MIB);
      rmSync(join(disk.path, 'rest'));
      await put(task, right, { first: 3, count: 1 });
    }
    await using store = await openStore({ directory: disk.path });
    const task = await store.create(wrong.description);
    expect(held(task)).toEqual([3]);
    const { start, end } = right.geometry.blockRange(3);
    expect((await task.read({ start, end })).equals(right.bytes.subarray(start, end))).toBe(true);
  });

  test('a copy that does not fit leaves nothing behind', async () => {
    using disk = mounted('tmpfs', 4 * MIB);
    using directory = scratch();
    await using store = await openStore({ directory: directory.path });
    const source = content(5 * MIB, MIB, 'copied');
    const task = await store.create(source.description);
    await putAll(task, source);
    await expect(task.copyTo(join(disk.path, 'out'), { overwrite: false })).rejects.toMatchObject({
      code: 'disk-full',
    });
    expect(readdirSync(disk.path)).toEqual([]);
  });
});

test.skipIf(!isRoot || !canMount('btrfs'))(
  'outputs share the disk blocks of the store (needs root and mkfs.btrfs)',
  async () => {
    using disk = mounted('btrfs', 256 * MIB);
    await using store = await openStore({ directory: disk.path });
    const source = content(60 * MIB, 4 * MIB, 'shared');
    const task = await store.create(source.description);
    await putAll(task, source);
    execFileSync('sync', ['-f', disk.path]);
    const free = () => statfsSync(disk.path).bavail * statfsSync(disk.path).bsize;
    const before = free();
    for (let i = 0; i < 5; i++) await task.copyTo(join(disk.path, `out ${i}`), { overwrite: false });
    execFileSync('sync', ['-f', disk.path]);
    expect(before - free()).toBeLessThan(60 * MIB);
    expect(readFileSync(join(disk.path, 'out 4')).equals(source.bytes)).toBe(true);
  },
);
