import { randomBytes } from 'node:crypto';
import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  allocate,
  copyFileRange,
  fileSystemOf,
  isInMemory,
  LinuxError,
  MAX_CACHED_READ,
  punchHole,
  readCached,
  selfTest,
  sendfile,
  tryLock,
} from '@pantala/linux';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

let scratch: string;

beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), 'pantala-files-'));
});
afterAll(() => rm(scratch, { recursive: true }));

describe('system calls', () => {
  test('copy_file_range copies a range to its place and stops with its signal', async () => {
    const content = randomBytes(40_000_000);
    await using source = await open(join(scratch, 'a'), 'w+');
    await using target = await open(join(scratch, 'b'), 'w+');
    await source.write(content, 0, content.length, 0);
    await copyFileRange(source.fd, target.fd, { start: 10, end: content.length - 1 });
    const copy = await readFile(join(scratch, 'b'));
    expect(copy.length).toBe(content.length - 1);
    expect(copy.subarray(10).equals(content.subarray(10, -1))).toBe(true);
    await expect(
      copyFileRange(source.fd, target.fd, { start: 0, end: content.length }, AbortSignal.abort()),
    ).rejects.toMatchObject({ code: 'cancelled' });
    await expect(copyFileRange(source.fd, target.fd, { start: 0, end: content.length + 1 })).rejects.toMatchObject({
      code: 'data-loss',
    });
  });

  test('a small read is answered at once from memory, or not at all', async () => {
    const content = randomBytes(50_000);
    const path = join(scratch, 'small');
    await using file = await open(path, 'w+');
    await file.write(content, 0, content.length, 0);
    if (!isInMemory(path)) {
      const first = readCached(file.fd, 1000, 4096);
      expect(first?.equals(content.subarray(1000, 5096))).toBe(true);
      expect(readCached(file.fd, 20_000, MAX_CACHED_READ)?.equals(content.subarray(20_000, 36_384))).toBe(true);
      // The next read does not overwrite what the last one gave.
      expect(first?.equals(content.subarray(1000, 5096))).toBe(true);
    }
    expect(readCached(file.fd, content.length - 10, 11)).toBeUndefined();
    expect(readCached(file.fd, 0, MAX_CACHED_READ + 1)).toBeUndefined();
    expect(readCached(-1, 0, 10)).toBeUndefined();
  });

  test('holes and reserved blocks', async () => {
    await using file = await open(join(scratch, 'holes'), 'w+');
    await allocate(file.fd, 0, 1_048_576);
    expect(await file.stat()).toMatchObject({ size: 0 });
    expect((await file.stat()).blocks).toBeGreaterThanOrEqual(2048);
    await file.write(Buffer.alloc(1_048_576, 1), 0, 1_048_576, 0);
    await punchHole(file.fd, 0, 524_288);
    expect((await file.stat()).blocks).toBeLessThan(2048);
    expect((await readFile(join(scratch, 'holes'))).indexOf(1)).toBe(524_288);
  });

  test('a failing call names itself, its arguments and the errno', async () => {
    const error = await copyFileRange(-1, -1, { start: 0, end: 1 }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(LinuxError);
    expect(error).toMatchObject({
      message: 'copy_file_range(-1, 0, -1, 0, 1) failed: EBADF',
      errno: { name: 'EBADF' },
      details: { call: 'copy_file_range', errno: 'EBADF' },
    });
    expect(() => sendfile(-1, -1, 0, 1)).toThrowError(LinuxError);
  });

  test('a file is locked until it is closed', async () => {
    const path = join(scratch, 'lock');
    await using second = await open(path, 'w');
    const first = await open(path, 'w');
    expect(tryLock(first.fd)).toBe(true);
    expect(tryLock(second.fd)).toBe(false);
    await first.close();
    expect(tryLock(second.fd)).toBe(true);
  });

  test('file systems are named and measured', async () => {
    const { freeBytes, totalBytes, usedBytes, type } = await fileSystemOf(scratch);
    expect(type).not.toBe('');
    expect(totalBytes).toBeGreaterThanOrEqual(freeBytes);
    expect(usedBytes + freeBytes).toBe(totalBytes);
  });

  test('the self-test reports each call, and leaves nothing behind', async () => {
    const reports = await selfTest(scratch);
    const calls = ['sendfile', 'preadv2 RWF_NOWAIT', 'copy_file_range', 'ioctl FICLONE', 'flock', 'fallocate'];
    expect(reports.map(({ call }) => call)).toEqual(calls);
    for (const report of reports) {
      // Which file system the tests run on decides about reflinks; everything else works on any Linux.
      if (report.call === 'ioctl FICLONE') expect(report.works).toBe(report.reason === undefined);
      else expect(report).toMatchObject({ works: true });
    }
  });
});
