import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Attributes, type Directory, differences, mergeTrees, type Node, nodeAt, walk } from '../../src/index.ts';
import { ATTRIBUTES, DEVICE, file, folder } from '../support/shapes.ts';
import { arbitraryTree } from '../support/trees.ts';

describe('differences of trees', () => {
  it('a tree and its copy have none', () => {
    fc.assert(
      fc.property(arbitraryTree(fc.constant({ size: 0, content: '' })), (root) => {
        const copy = mergeTrees(undefined, root, 'none');
        expect([...differences(root, copy)]).toEqual([]);
      }),
      { numRuns: 50 },
    );
  });

  it('each one is named', () => {
    const linked = file('l');
    const expected = folder({
      kind: file(''),
      dir: { a: file('1'), b: { c: file('1') } },
      size: file('12'),
      content: file('1'),
      'link-1': linked,
      'link-2': linked,
      device: { ...DEVICE, minor: 3 } as Node<string>,
      target: { kind: 'symlink', attributes: ATTRIBUTES, target: 'a' },
      facts: file(''),
    });
    const actual = folder({
      kind: { new: file('') },
      dir: {},
      size: file('1'),
      content: file('2'),
      'link-1': linked,
      'link-2': { ...linked },
      device: DEVICE,
      target: { kind: 'symlink', attributes: ATTRIBUTES, target: 'b\n' },
      facts: {
        ...file(''),
        attributes: {
          mode: 0o644,
          uid: 1,
          gid: 2,
          mtime: { seconds: 1_600_000_000, nanoseconds: 1 },
          xattrs: new Map([['user.a', Uint8Array.of(1)]]),
        },
      },
      more: file(''),
    });
    const found = [
      ...differences(expected, actual, (left, right) =>
        left.content === right.content ? undefined : { expected: left.content, actual: right.content },
      ),
    ].map((each) => `${each.path} ${each.what}: ${each.expected} / ${each.actual}`);
    expect(found).toEqual([
      '/content content: 1 / 2',
      '/device device: 0:3 / 0:0',
      '/dir/a missing: regular / nothing',
      '/dir/b missing: directory / nothing',
      '/dir/b/c missing: regular / nothing',
      '/facts mode: 755 / 644',
      '/facts uid: 0 / 1',
      '/facts gid: 0 / 2',
      '/facts mtime: 1600000000 s 0 ns / 1600000000 s 1 ns',
      '/facts xattr: no user.a / user.a=0x01',
      '/kind kind: regular / directory',
      '/kind/new unexpected: nothing / regular',
      '/link-2 links: /link-1 / /link-2',
      '/more unexpected: nothing / regular',
      '/size size: 2 / 1',
      '/target target: a / b\\n',
    ]);
  });

  it('any one change of a file is found', () => {
    const changes: ((attributes: Attributes) => Attributes)[] = [
      (each) => ({ ...each, mode: each.mode ^ 0o1 }),
      (each) => ({ ...each, uid: each.uid ^ 1 }),
      (each) => ({ ...each, mtime: { ...each.mtime, seconds: each.mtime.seconds + 1 } }),
      (each) => ({ ...each, xattrs: new Map([...each.xattrs, ['user.changed', new Uint8Array(0)]]) }),
    ];
    fc.assert(
      fc.property(
        arbitraryTree(fc.constant({ size: 0, content: '' })),
        fc.constantFrom(...changes),
        fc.nat(),
        (root, change, index) => {
          const copy = mergeTrees(undefined, root, 'none');
          const all = [...walk(copy)];
          const victim = all[index % all.length]!;
          const changed = { ...victim.node, attributes: change(victim.node.attributes) };
          if (victim.path === '/') {
            expect([...differences(root, changed as Directory<string>)]).toHaveLength(1);
            return;
          }
          const cut = victim.path.lastIndexOf('/');
          const above = nodeAt(copy, victim.path.slice(0, cut)) as Directory<string>;
          above.entries.set(victim.path.slice(cut + 1), changed);
          const found = [...differences(root, copy)].filter(({ what }) => what !== 'links');
          expect(found).toHaveLength(1);
          expect(found[0]?.path).toBe(victim.path);
        },
      ),
      { numRuns: 100 },
    );
  });
});
