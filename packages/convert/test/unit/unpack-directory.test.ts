import { chmodSync, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import type { Attributes, Directory, Node, RegularFile } from '@pantala/rafs';
import { readTree, Scratch } from '@pantala/testkit';
import { describe, expect, test } from 'vitest';
import { unpackDirectory } from '../../src/unpack/directory.ts';

const root = process.getuid?.() === 0;
const byRoot = test.skipIf(!root);

type Content = Uint8Array;

function attributes(facts: Partial<Attributes> = {}): Attributes {
  const own = { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  return { mode: 0o644, ...own, mtime: { seconds: 1_600_000_000, nanoseconds: 5 }, xattrs: new Map(), ...facts };
}

function file(text: string, facts: Partial<Attributes> = {}): RegularFile<Content> {
  const content = Buffer.from(text, 'latin1');
  return { kind: 'regular', attributes: attributes(facts), size: content.length, content };
}

function folder(entries: Record<string, Node<Content>>, facts: Partial<Attributes> = {}): Directory<Content> {
  return {
    kind: 'directory',
    attributes: attributes({ mode: 0o755, ...facts }),
    entries: new Map(Object.entries(entries)),
  };
}

async function* inPieces({ content }: RegularFile<Content>): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < content.length; start += 4096) yield content.subarray(start, start + 4096);
}

describe('unpacking into a directory', () => {
  byRoot('restores everything that root may', async () => {
    await using scratch = Scratch.create('unpack');
    const linked = file('linked', { mode: 0o4711, uid: 7, gid: 8 });
    const late = { seconds: -3, nanoseconds: 999_999_999 };
    const tree = folder(
      {
        'a\n\xff': linked,
        b: folder({ again: linked, 'read-only': folder({ inside: file('x') }, { mode: 0o555 }) }, { mtime: late }),
        c: { kind: 'symlink', attributes: attributes({ mtime: late }), target: '../\xfe\n' },
        d: { kind: 'block', attributes: attributes({ mode: 0o640 }), major: 259, minor: 70_000 },
        e: { kind: 'fifo', attributes: attributes({ mode: 0o622 }) },
        f: { kind: 'socket', attributes: attributes() },
        g: file('', {
          xattrs: new Map([
            ['user.a', Buffer.from('1')],
            ['trusted.b\xff', Buffer.alloc(0)],
          ]),
        }),
        h: file(`${'\0'.repeat(100_000)}end`),
      },
      { mode: 0o1777, mtime: { seconds: 5, nanoseconds: 6 } },
    );
    const report = await unpackDirectory(tree, scratch.join('out'), { content: inPieces });
    expect(report).toEqual({ entries: 12, bytes: 100_010, lost: [] });
    const found = await readTree(scratch.join('out'));
    expect(found.get('.')).toMatchObject({ mode: '41777', mtime: '5000000006' });
    expect(found.get('a\n\xff')).toMatchObject({
      mode: '104711',
      uid: 7,
      gid: 8,
      nlink: 2,
      mtime: '1600000000000000005',
    });
    expect(found.get('b/again')?.hl).toBe('a\n\xff');
    expect(found.get('b')?.mtime).toBe('-2000000001');
    expect(found.get('b/read-only')?.mode).toBe('40555');
    expect(found.get('c')).toMatchObject({ target: '2e2e2ffe0a', mtime: '-2000000001' });
    expect(found.get('d')).toMatchObject({ mode: '60640', rdev: '259:70000' });
    expect(found.get('e')?.mode).toBe('10622');
    expect(found.get('f')?.mode).toBe('140644');
    expect(found.get('g')?.xattr).toEqual({ 'user.a': '31', 'trusted.b\xff': '' });
    const holed = lstatSync(scratch.join('out/h'));
    expect(holed.size).toBe(100_003);
    expect(holed.blocks * 512).toBeLessThan(20_000);
    expect(readFileSync(scratch.join('out/h')).subarray(99_999).toString()).toBe('\0end');
  });

  byRoot('says what somebody who is not root could not restore, and restores the rest', async () => {
    await using scratch = Scratch.create('unpack');
    chmodSync(scratch.path, 0o777);
    const tree = folder({
      owned: file('1', { uid: 7, mode: 0o400 }),
      'owned-too': file('2', { uid: 8 }),
      device: { kind: 'character', attributes: attributes(), major: 1, minor: 3 },
      'device-too': { kind: 'character', attributes: attributes(), major: 1, minor: 3 },
      trusted: file('3', { uid: 65_534, gid: 65_534, xattrs: new Map([['trusted.a', Buffer.from('1')]]) }),
    });
    process.setegid?.(65_534);
    process.seteuid?.(65_534);
    try {
      const { lost } = await unpackDirectory(tree, scratch.join('out'), { content: inPieces });
      expect(lost.map(({ what, count, path }) => [what, count, path])).toEqual([
        ['device', 2, 'device'],
        ['owner', 3, 'owned'],
        ['xattr trusted.*', 1, 'trusted'],
      ]);
    } finally {
      process.seteuid?.(0);
      process.setegid?.(0);
    }
    const found = await readTree(scratch.join('out'));
    expect([...found.keys()]).toEqual(['.', 'owned', 'owned-too', 'trusted']);
    expect(found.get('owned')).toMatchObject({ mode: '100400', uid: 65_534, mtime: '1600000000000000005' });
  });

  test('a directory that holds something is left as it is', async () => {
    await using scratch = Scratch.create('unpack');
    mkdirSync(scratch.join('out'));
    writeFileSync(scratch.join('out/there'), '');
    await expect(unpackDirectory(folder({ a: file('x') }), scratch.join('out'), { content: inPieces })).rejects.toThrow(
      /is not empty/,
    );
    expect(readdirSync(scratch.join('out'))).toEqual(['there']);
  });

  test('a path that no system call takes is an error that says so', async () => {
    await using scratch = Scratch.create('unpack');
    let deep = folder({});
    for (let level = 0; level < 20; level++) deep = folder({ ['d'.repeat(250)]: deep });
    await expect(unpackDirectory(deep, scratch.join('out'), { content: inPieces })).rejects.toThrow(
      /unpack into a \.tar/,
    );
  });

  test('stops when it is told to', async () => {
    await using scratch = Scratch.create('unpack');
    const stop = new AbortController();
    const tree = folder({ a: file('x'), b: file('y') });
    const progress = (): void => stop.abort();
    await expect(
      unpackDirectory(tree, scratch.join('out'), { content: inPieces, progress, signal: stop.signal }),
    ).rejects.toMatchObject({ code: 'cancelled' });
  });
});
