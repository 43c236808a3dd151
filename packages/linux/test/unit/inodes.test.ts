import { lstatSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeNode, setTimes, setXattr } from '../../src/index.ts';

const root = process.getuid?.() === 0;

describe('inodes', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'pantala-inodes-'));
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  const path = (name: string): Buffer => Buffer.from(join(folder, name), 'latin1');

  test('fifos and sockets under any name', () => {
    makeNode(path('fifo\xff\n'), 'fifo', 0o600);
    expect(lstatSync(path('fifo\xff\n')).isFIFO()).toBe(true);
    makeNode(path('socket'), 'socket', 0o600);
    expect(lstatSync(path('socket')).isSocket()).toBe(true);
    expect(() => makeNode(path('socket'), 'fifo', 0o600)).toThrow(/EEXIST/);
  });

  test.skipIf(!root)(`devices with large numbers${root ? '' : ' (needs root)'}`, () => {
    for (const [major, minor] of [
      [1, 3],
      [4095, 1_048_575],
      [259, 70_000],
      [0, 256],
    ] as const) {
      const name = path(`device-${major}-${minor}`);
      makeNode(name, 'block', 0o600, major, minor);
      const { rdev } = lstatSync(name, { bigint: true });
      // gnu_dev_major and gnu_dev_minor.
      expect(Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn))).toBe(major);
      expect(Number((rdev & 0xffn) | ((rdev >> 12n) & ~0xffn))).toBe(minor);
    }
  });

  test('times to the nanosecond, before 1970, of a symbolic link itself', () => {
    writeFileSync(path('file'), '');
    symlinkSync('file', path('symlink'));
    setTimes(path('file'), -5, 999_999_999);
    setTimes(path('symlink'), 1_600_000_000, 123_456_789);
    expect(lstatSync(path('file'), { bigint: true }).mtimeNs).toBe(-4_000_000_001n);
    expect(lstatSync(path('symlink'), { bigint: true }).mtimeNs).toBe(1_600_000_000_123_456_789n);
    expect(() => setTimes(path('nothing'), 0, 0)).toThrow(/ENOENT/);
  });

  test('an extended attribute that cannot be set is an error with its errno', () => {
    expect(() => setXattr(path('file'), Buffer.from('nonsense'), Buffer.from('value'))).toThrow(/EOPNOTSUPP/);
    expect(() => setXattr(path('nothing'), Buffer.from('user.a'), Buffer.alloc(0))).toThrow(/ENOENT/);
  });
});
