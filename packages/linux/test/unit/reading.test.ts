import {
  closeSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { dataExtents, getXattr, LinuxError, listXattrs, setXattr } from '../../src/index.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'pantala-reading-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe('extended attributes', () => {
  test('names and values come back as they were set, long and empty ones too', () => {
    const path = Buffer.from(join(folder, 'file'));
    writeFileSync(path, '');
    const given = new Map([
      ['user.a', Buffer.from('one')],
      ['user.empty', Buffer.alloc(0)],
      ['user.bytes', Buffer.from([0, 255, 0, 10])],
    ]);
    for (const [name, value] of given) setXattr(path, Buffer.from(name), value);
    const names = listXattrs(path).map(String);
    expect(names.filter((name) => name.startsWith('user.')).toSorted()).toEqual([...given.keys()].toSorted());
    for (const [name, value] of given) expect(getXattr(path, Buffer.from(name))).toEqual(value);
    expect(getXattr(path, Buffer.from('user.other'))).toBeUndefined();
  });

  test('a symbolic link is not followed, and what is missing is an error', () => {
    const link = Buffer.from(join(folder, 'link'));
    symlinkSync('nowhere', link);
    expect(
      listXattrs(link)
        .map(String)
        .filter((name) => name.startsWith('user.')),
    ).toEqual([]);
    expect(() => listXattrs(Buffer.from(join(folder, 'nothing')))).toThrow(LinuxError);
  });
});

describe('extents', () => {
  test('data and holes of a sparse file', () => {
    const descriptor = openSync(join(folder, 'sparse'), 'w+');
    try {
      ftruncateSync(descriptor, 64 * 1024 * 1024);
      expect([...dataExtents(descriptor, 64 * 1024 * 1024)]).toEqual([]);
      writeSync(descriptor, Buffer.alloc(10_000, 1), 0, 10_000, 32 * 1024 * 1024);
      const extents = [...dataExtents(descriptor, 64 * 1024 * 1024)];
      expect(extents).toHaveLength(1);
      expect(extents[0]?.offset).toBe(32 * 1024 * 1024);
      expect(extents[0]?.length).toBeLessThan(1024 * 1024);
    } finally {
      closeSync(descriptor);
    }
  });

  test('a dense file is one run that ends with it', () => {
    writeFileSync(join(folder, 'dense'), Buffer.alloc(5000, 1));
    const descriptor = openSync(join(folder, 'dense'), 'r');
    try {
      expect([...dataExtents(descriptor, 5000)]).toEqual([{ offset: 0, length: 5000 }]);
      expect([...dataExtents(descriptor, 0)]).toEqual([]);
    } finally {
      closeSync(descriptor);
    }
  });
});
