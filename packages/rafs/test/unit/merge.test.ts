import type { ByteString } from '@pantala/base';
import { compareTrees, readTreeFile } from '@pantala/testkit';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  BLOB_FEATURES,
  type Directory,
  decodeBootstrap,
  differences,
  encodeBootstrap,
  type FileChunks,
  linkBelow,
  mergeLayers,
  mergeTrees,
  type Node,
  nodeAt,
  type RegularFile,
  type WhiteoutSpec,
  walk,
} from '../../src/index.ts';
import { factsOf } from '../support/facts.ts';
import { fixture, fixturePath } from '../support/fixtures.ts';
import { ATTRIBUTES, DEVICE, file, folder } from '../support/shapes.ts';
import { arbitraryTree } from '../support/trees.ts';

const WHITEOUT = file('');

function paths(root: Directory<string>): string[] {
  return [...walk(root)].map(({ path, node }) => (node.kind === 'regular' ? `${path}=${node.content}` : path));
}

function merged(spec: WhiteoutSpec, ...layers: Directory<string>[]): Directory<string> {
  return layers.reduce<Directory<string> | undefined>((lower, upper) => mergeTrees(lower, upper, spec), undefined)!;
}

describe('trees of layers', () => {
  it('give the file that a layer only links to another name', () => {
    const [kept, replaced] = [file('1'), file('2')];
    const symlink: Node<string> = { kind: 'symlink', attributes: ATTRIBUTES, target: '../usr/./lib' };
    const lower = folder({ usr: { lib: { kept, replaced, dir: {} } }, opt: { lib: symlink } });
    const upper = folder({
      usr: { lib: { replaced: file('3'), '.wh.kept': WHITEOUT } },
      a: linkBelow('usr/lib/kept'),
      b: { c: linkBelow('opt/lib/replaced') },
      d: linkBelow('opt/lib'),
    });
    const both = merged('oci', lower, upper);
    expect(paths(both)).toContain('/usr/lib/replaced=3');
    expect(nodeAt(both, 'usr/lib/kept')).toBeUndefined();
    for (const [path, node] of Object.entries({ a: kept, 'b/c': replaced, d: symlink }))
      expect(nodeAt(both, path)).toBe(node);
    const third = folder({ x: { y: linkBelow('a') } });
    expect(nodeAt(merged('none', lower, upper, third), 'x/y')).toBe(kept);
  });

  it.each(['missing', 'usr/lib/dir', 'usr/lib/kept/below', 'loop/x', 'own', '..'])(
    'have no file that a layer could link to: %s',
    (target) => {
      const loop: Node<string> = { kind: 'symlink', attributes: ATTRIBUTES, target: 'loop' };
      const lower = folder({ usr: { lib: { kept: file('1'), dir: {} } }, loop });
      const upper = folder({ own: file('2'), b: { c: linkBelow(target) } });
      const message = `"b/c" is a hard link to "${target}", which is no file of its layer or of one below it`;
      expect(() => merged('oci', lower, upper)).toThrow(message);
      expect(() => merged('oci', upper)).toThrow(message);
    },
  );

  it('are joined, the upper one winning', () => {
    const lower = folder({ a: file('1'), dir: { x: file('1'), y: file('1') }, was: { deep: { f: file('1') } } });
    const upper = folder({ a: file('2'), dir: { y: file('2'), z: file('2') }, was: file('2') });
    expect(paths(merged('oci', lower, upper))).toEqual([
      '/',
      '/a=2',
      '/dir',
      '/dir/x=1',
      '/dir/y=2',
      '/dir/z=2',
      '/was=2',
    ]);
    expect(paths(lower)).toHaveLength(8);
  });

  it('a directory replaces a file, and hides nothing else', () => {
    const root = merged('oci', folder({ a: file('1'), b: file('1') }), folder({ a: { x: file('2') } }));
    expect(paths(root)).toEqual(['/', '/a', '/a/x=2', '/b=1']);
  });

  it('the attributes of directories are those of the upper layer, also of the root', () => {
    const upper = { ...ATTRIBUTES, mode: 0o700, xattrs: new Map([['user.a', new Uint8Array(1)]]) };
    const root = merged('oci', folder({ d: { x: file('1') } }), {
      ...folder({}, upper),
      entries: new Map([['d', folder({}, upper)]]),
    });
    expect(root.attributes).toEqual(upper);
    expect(nodeAt(root, '/d')?.attributes).toEqual(upper);
    expect(nodeAt(root, '/d/x')).toBeDefined();
  });

  it('whiteouts of OCI hide what is below them, not what is beside them', () => {
    const lower = folder({ gone: { f: file('1') }, stays: file('1'), both: { old: file('1') }, dir: { x: file('1') } });
    const upper = folder({
      '.wh.gone': WHITEOUT,
      '.wh.both': WHITEOUT,
      both: { new: file('2') },
      dir: { '.wh.x': WHITEOUT, '.wh.never': WHITEOUT },
    });
    expect(paths(merged('oci', lower, upper))).toEqual(['/', '/both', '/both/new=2', '/dir', '/stays=1']);
  });

  it('an opaque directory of OCI hides all that lower layers have in it', () => {
    const lower = folder({ dir: { a: file('1'), sub: { b: file('1') } }, other: file('1') });
    const upper = folder({ dir: { '.wh..wh..opq': WHITEOUT, sub: { c: file('2') } } });
    expect(paths(merged('oci', lower, upper))).toEqual(['/', '/dir', '/dir/sub', '/dir/sub/c=2', '/other=1']);
  });

  it('no whiteout is left, whatever it says: not in the lowest layer, not in new directories, none of aufs', () => {
    const lowest = folder({ '.wh.x': WHITEOUT, new: { '.wh..wh..opq': WHITEOUT, deep: { '.wh.y': WHITEOUT } } });
    const upper = folder({ '.wh..wh.plnk': { '1.2': file('2') }, '.wh.': WHITEOUT });
    expect(paths(merged('oci', lowest, upper))).toEqual(['/', '/new', '/new/deep']);
  });

  it('whiteouts of overlayfs are devices 0:0 and an attribute that goes', () => {
    const opaque = new Map([
      ['trusted.overlay.opaque', Buffer.from('y')],
      ['user.kept', Buffer.from('1')],
    ]);
    const lower = folder({ gone: file('1'), dir: { x: file('1') }, plain: { x: file('1') } });
    const upper = folder({
      gone: DEVICE,
      dir: folder({ y: file('2'), '.wh.x': WHITEOUT }, { ...ATTRIBUTES, xattrs: opaque }),
      plain: folder({}, { ...ATTRIBUTES, xattrs: new Map([['trusted.overlay.opaque', Buffer.from('n')]]) }),
    });
    const root = merged('overlayfs', lower, upper);
    expect(paths(root)).toEqual(['/', '/dir', '/dir/.wh.x=', '/dir/y=2', '/plain', '/plain/x=1']);
    expect([...(nodeAt(root, '/dir')?.attributes.xattrs.keys() ?? [])]).toEqual(['user.kept']);
    expect([...(nodeAt(root, '/plain')?.attributes.xattrs.keys() ?? [])]).toEqual(['trusted.overlay.opaque']);
  });

  it('without a rule, whiteouts are files', () => {
    const root = merged('none', folder({ a: file('1') }), folder({ '.wh.a': WHITEOUT, dev: DEVICE }));
    expect(paths(root)).toEqual(['/', '/.wh.a=', '/a=1', '/dev']);
  });

  it('hard links stay links, also when one of their names is replaced or hidden', () => {
    const linked = file('1');
    const lower = folder({ a: linked, b: linked, c: linked, d: { e: linked } });
    const root = merged('oci', lower, folder({ a: file('2'), '.wh.b': WHITEOUT }));
    expect(nodeAt(root, '/c')).toBe(nodeAt(root, '/d/e'));
    expect(nodeAt(root, '/a')).not.toBe(nodeAt(root, '/c'));
  });

  it('are what a list of paths would become', () => {
    const layer = arbitraryTree<string>(fc.constant({ size: 0, content: '' })).chain((root) =>
      fc
        .array(fc.tuple(fc.nat(), fc.oneof(fc.constant('.wh..wh..opq'), fc.stringMatching(/^\.wh\.[a-f]$/))), {
          maxLength: 5,
        })
        .map((whiteouts) => {
          const directories = [...walk(root)].map(({ node }) => node).filter((node) => node.kind === 'directory');
          for (const [index, name] of whiteouts) directories[index % directories.length]?.entries.set(name, WHITEOUT);
          return root;
        }),
    );
    fc.assert(
      fc.property(fc.array(layer, { minLength: 1, maxLength: 4 }), (layers) => {
        const model = layers.reduce(appliedToPaths, new Map<ByteString, Node<string>>());
        const root = merged('oci', ...layers);
        const actual = new Map([...walk(root)].map(({ path, node }) => [path, node]));
        expect([...actual.keys()].sort()).toEqual([...model.keys()].sort());
        for (const [path, node] of actual) {
          const known = model.get(path);
          if (node.kind === 'directory') expect(known?.attributes).toEqual(node.attributes);
          else expect(known).toBe(node);
        }
      }),
      { numRuns: process.env.PANTALA_FULL === '1' ? 2000 : 150 },
    );
  });
});

/** The rules of OCI on a list of paths: first all whiteouts, then what is new. */
function appliedToPaths(lower: ReadonlyMap<ByteString, Node<string>>, upper: Directory<string>) {
  const result = new Map(lower);
  const remove = (test: (path: ByteString) => boolean): void => {
    for (const path of result.keys()) if (test(path)) result.delete(path);
  };
  const entries = [...walk(upper)].map(({ path, node }) => {
    const cut = path.lastIndexOf('/');
    return { path, node, folder: path.slice(0, cut), name: path.slice(cut + 1) };
  });
  const real = entries.filter(({ folder: above }) => !above.split('/').some((name) => name.startsWith('.wh.')));
  for (const { folder: above, name } of real) {
    if (name === '.wh..wh..opq') remove((path) => path !== '/' && path.startsWith(`${above}/`));
    else if (name.startsWith('.wh.')) {
      const target = `${above}/${name.slice(4)}`;
      remove((path) => path === target || path.startsWith(`${target}/`));
    }
  }
  for (const { path, node, name } of real) {
    if (name.startsWith('.wh.')) continue;
    if (node.kind !== 'directory' || result.get(path)?.kind !== 'directory') {
      if (path !== '/') remove((known) => known === path || known.startsWith(`${path}/`));
    }
    result.set(path, node);
  }
  return result;
}

const layers = ['l-tar-1', 'l-tar-2', 'l-tar-3'].map((name) =>
  decodeBootstrap(fixture(`nydus-tools/${name}/bootstrap`)),
);

const sameDigests = (expected: RegularFile, actual: RegularFile) => {
  const [left, right] = [digestsOf(expected.content), digestsOf(actual.content)];
  return left === right ? undefined : { expected: left, actual: right };
};

function digestsOf(content: FileChunks): string {
  return content.map(({ digest }) => Buffer.from(digest).toString('hex')).join(' ');
}

describe('images of layers', () => {
  it('are what the real tool makes of them: tree, content, blobs in their order, chunks', () => {
    const real = decodeBootstrap(fixture('nydus-tools/l-merge-tar/bootstrap'));
    const ours = mergeLayers(layers);
    const expected = readTreeFile(fixturePath('nydus-tools/src/layers-merged.expect.json'));
    expect(compareTrees(expected, factsOf(ours.root), { without: ['sha'] })).toEqual([]);
    expect([...differences(real.root, ours.root, sameDigests)]).toEqual([]);
    expect(ours.blobs).toEqual(real.blobs);
    // Both are written the same, so every chunk is in the same place.
    expect(encodeBootstrap(ours).equals(encodeBootstrap(real))).toBe(true);
  });

  it('a blob that several layers name stands there once, its chunks too', () => {
    const [first] = layers;
    const twice = mergeLayers([first!, decodeBootstrap(fixture('nydus-tools/l-tar-1/bootstrap'))]);
    expect(twice.blobs).toHaveLength(1);
    expect([...differences(first!.root, twice.root, sameDigests)]).toEqual([]);
    expect(decodeBootstrap(encodeBootstrap(twice)).blobs).toEqual(first!.blobs);
  });

  it('blobs of which nothing is left are gone', () => {
    const [first, second] = layers;
    const opaque = { ...second!, root: { ...second!.root, entries: new Map(second!.root.entries) } };
    opaque.root.entries.set('.wh..wh..opq', { kind: 'regular', attributes: ATTRIBUTES, size: 0, content: [] });
    expect(mergeLayers([first!, opaque]).blobs).toEqual(second!.blobs);
  });

  it('the merged image holds no bootstrap in its blobs', () => {
    const [first] = layers;
    const blobs = first!.blobs.map((blob) => ({ ...blob, features: blob.features | BLOB_FEATURES.inlinedBootstrap }));
    expect(mergeLayers([{ ...first!, blobs }]).blobs).toEqual(first!.blobs);
  });

  it.each([
    ['without a layer', () => mergeLayers([]), 'invalid-argument', /no layer/],
    [
      'with different chunk sizes',
      () => mergeLayers([layers[0]!, { ...layers[1]!, chunkSize: 4096 }]),
      'failed-precondition',
      /chunkSize is 1048576 in one and 4096/,
    ],
    [
      'with a blob that has no id yet',
      () => mergeLayers([{ ...layers[0]!, blobs: [{ ...layers[0]!.blobs[0]!, id: 'x'.repeat(64) }] }]),
      'failed-precondition',
      /give it the digest/,
    ],
    [
      'with two blobs under one id',
      () =>
        mergeLayers([layers[0]!, { ...layers[1]!, blobs: [{ ...layers[1]!.blobs[0]!, id: layers[0]!.blobs[0]!.id }] }]),
      'failed-precondition',
      /do not agree on blob/,
    ],
  ])('%s they are refused', (_, merge, code, message) => {
    let error: unknown;
    try {
      merge();
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ code, message: expect.stringMatching(message) });
  });
});
