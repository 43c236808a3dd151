import { TarTree } from '@pantala/convert';
import type { TarEntryKind, TarHeader } from '@pantala/oci';
import { type Directory, mergeTrees, type Node } from '@pantala/rafs';
import { describe, expect, test } from 'vitest';

function member(kind: TarEntryKind, path: string, more: Partial<TarHeader> = {}): TarHeader {
  const mtime = { seconds: 7, nanoseconds: 0 };
  const zero = { size: 0, linkTarget: '', major: 0, minor: 0 };
  return { kind, path, mode: 0o700, uid: 1, gid: 2, mtime, xattrs: new Map(), ...zero, ...more };
}

/** Builds a tree; the content of a file is its number among the members. */
function treeOf(...members: readonly TarHeader[]) {
  return added(members).finish();
}

function added(members: readonly TarHeader[]) {
  const tree = new TarTree<number>();
  for (const [number, header] of members.entries()) {
    if (header.kind === 'regular') tree.addFile(header, number);
    else tree.add(header);
  }
  return tree;
}

function lookUp(root: Directory<number>, path: string): Node<number> | undefined {
  let node: Node<number> | undefined = root;
  for (const name of path.split('/')) node = node?.kind === 'directory' ? node.entries.get(name) : undefined;
  return node;
}

const file = (path: string) => member('regular', path);
const link = (path: string, linkTarget: string) => member('hardlink', path, { linkTarget });
const symlink = (path: string, linkTarget: string) => member('symlink', path, { linkTarget });
const folder = (path: string, more?: Partial<TarHeader>) => member('directory', path, more);

describe('a tree of the members of a tar', () => {
  test('has them where they belong, with what they are', () => {
    const { root, implied } = treeOf(
      folder('', { mode: 0o711 }),
      folder('a'),
      member('regular', 'a/file', { size: 5 }),
      symlink('a/link', '../x'),
      member('character', 'a/device', { major: 1, minor: 3 }),
      member('fifo', 'a/fifo'),
    );
    expect(root.attributes.mode).toBe(0o711);
    expect(lookUp(root, 'a/file')).toMatchObject({ kind: 'regular', size: 5, content: 2 });
    expect(lookUp(root, 'a/link')).toMatchObject({ kind: 'symlink', target: '../x' });
    expect(lookUp(root, 'a/device')).toMatchObject({ kind: 'character', major: 1, minor: 3 });
    expect(lookUp(root, 'a/fifo')).toMatchObject({ kind: 'fifo', attributes: { uid: 1, gid: 2 } });
    expect(implied.size).toBe(0);
  });

  test('has parents that no member describes, until one does', () => {
    const { root, implied } = treeOf(file('a/b/c'), folder('a'));
    expect(lookUp(root, 'a/b')).toMatchObject({ attributes: { mode: 0o755, uid: 0 } });
    expect(lookUp(root, 'a')).toMatchObject({ attributes: { mode: 0o700, uid: 1 } });
    expect([...implied]).toEqual([root, lookUp(root, 'a/b')]);
  });

  test('has the later of two with one name; directories keep what is in them', () => {
    const { root } = treeOf(
      file('f'),
      file('f'),
      folder('d'),
      file('d/x'),
      folder('d', { mode: 0o500 }),
      file('e/x'),
      file('e'),
    );
    expect(lookUp(root, 'f')).toMatchObject({ content: 1 });
    expect(lookUp(root, 'd')).toMatchObject({ attributes: { mode: 0o500 } });
    expect(lookUp(root, 'd/x')).toMatchObject({ kind: 'regular' });
    expect(lookUp(root, 'e')).toMatchObject({ kind: 'regular' });
  });

  test('follows symbolic links on the way, inside the root', () => {
    const { root } = treeOf(
      symlink('lib', 'usr/lib'),
      file('lib/a'),
      symlink('up', '../../../usr/bin'),
      file('up/b'),
      symlink('absolute', '/usr/lib'),
      file('absolute/c'),
      link('d', 'lib/a'),
    );
    for (const path of ['usr/lib/a', 'usr/bin/b', 'usr/lib/c']) expect(lookUp(root, path)?.kind).toBe('regular');
    expect(lookUp(root, 'd')).toBe(lookUp(root, 'usr/lib/a'));
  });

  test('refuses to go through a file or round and round', () => {
    expect(() => treeOf(file('f'), file('f/x'))).toThrow('"f/x" that lies below something that is no directory');
    expect(() => treeOf(symlink('l', 'l'), file('l/x'))).toThrow('behind more than 40 links');
    expect(() => treeOf(file(''))).toThrow('in the place of the root');
  });
});

describe('hard links', () => {
  test('are one object, whatever it is', () => {
    const { root } = treeOf(file('a'), link('b', 'a'), symlink('s', 'a'), link('t', 's'), link('x/c', 'b'));
    expect(lookUp(root, 'b')).toBe(lookUp(root, 'a'));
    expect(lookUp(root, 'x/c')).toBe(lookUp(root, 'a'));
    expect(lookUp(root, 't')).toBe(lookUp(root, 's'));
  });

  test('may come before what they name, in chains, too', () => {
    const { root } = treeOf(link('c', 'b'), link('x/b2', 'b'), link('b', 'z/a'), file('z/a'));
    for (const path of ['b', 'c', 'x/b2']) expect(lookUp(root, path)).toBe(lookUp(root, 'z/a'));
    expect(lookUp(root, 'z/a')).toMatchObject({ content: 3 });
  });

  test('keep what they named when that is replaced', () => {
    const { root } = treeOf(file('a'), link('b', 'a'), file('a'));
    expect(lookUp(root, 'b')).toMatchObject({ content: 0 });
    expect(lookUp(root, 'a')).toMatchObject({ content: 2 });
  });

  test('that wait are replaced like others', () => {
    const { root } = treeOf(link('b', 'a'), file('b'), file('a'));
    expect(lookUp(root, 'b')).toMatchObject({ content: 1 });
  });

  test('to nothing, to themselves or to a directory are refused by name', () => {
    expect(() => treeOf(link('b', 'a'))).toThrow('"b" that is a hard link to "a", which is not in the tar');
    expect(() => treeOf(link('b', 'b'))).toThrow('a hard link to itself');
    expect(() => treeOf(folder('d'), link('b', 'd'))).toThrow('the directory "d"');
    expect(() => treeOf(link('b', 'd'), folder('d'))).toThrow('the directory "d"');
    expect(() => treeOf(link('b', ''))).toThrow('to the root');
  });

  test('of a layer may name files of lower ones, all that name one are one file', () => {
    const layer = [
      symlink('lib', 'usr/lib'),
      link('c', 'b'),
      link('b', 'lib/a'),
      link('d', 'usr/lib/a'),
      link('e', 'a/../other'),
    ];
    const { root, implied } = added(layer).finish(true);
    for (const path of ['c', 'd']) expect(lookUp(root, path)).toBe(lookUp(root, 'b'));
    expect(lookUp(root, 'e')).not.toBe(lookUp(root, 'b'));
    // Looking for a target makes no directory, which would hide a symbolic link of a lower layer.
    expect([...root.entries.keys()]).toEqual(['lib', 'b', 'c', 'd', 'e']);
    expect(implied.size).toBe(1);
    const lower = added([file('usr/lib/a'), file('other')]).finish().root;
    const merged = mergeTrees(lower, root);
    for (const path of ['b', 'c', 'd']) expect(lookUp(merged, path)).toBe(lookUp(lower, 'usr/lib/a'));
    expect(lookUp(merged, 'e')).toBe(lookUp(lower, 'other'));
    expect(() => added([link('b', 'c'), link('c', 'b')]).finish(true)).toThrow('which is a link to it');
  });

  test('to themselves that are there already change nothing', () => {
    const { root } = treeOf(file('a'), link('a', 'a'));
    expect(lookUp(root, 'a')).toMatchObject({ content: 0 });
  });
});
