import { compareTrees, type EntryFacts, type Fact, readTreeFile } from '@pantala/testkit';
import { describe, expect, it } from 'vitest';
import {
  ChunkMap,
  chunksByBlob,
  decodeBootstrap,
  nodeAt,
  type RafsImage,
  type RegularFile,
  readBootstrap,
  walk,
} from '../../src/index.ts';
import { factsOf } from '../support/facts.ts';
import { fixture, fixturePath } from '../support/fixtures.ts';

function image(name: string): RafsImage {
  return decodeBootstrap(fixture(`nydus-tools/${name}/bootstrap`));
}

function differences(name: string, tree: string, except: (path: string, facts: EntryFacts) => readonly Fact[]) {
  const expected = readTreeFile(fixturePath(`nydus-tools/src/${tree}.expect.json`));
  return compareTrees(expected, factsOf(image(name).root), { without: ['sha'], except });
}

function placesOf(map: ChunkMap) {
  const everything = { start: 0, end: map.blob.uncompressedSize };
  return map.fetchGroups(everything, { maxLength: 0, maxGap: 0 }).flatMap(({ units }) => units);
}

/** What nydus-image loses: the root's time and hard links of all but regular files. */
const fromDirectory = (path: string, facts: EntryFacts): readonly Fact[] => {
  if (path === '.') return ['mtime'];
  return facts.nlink > 1 && !/^(4|10.)\d{4}$/.test(facts.mode) ? ['nlink', 'hl'] : [];
};

describe('bootstraps of the real builder', () => {
  it.each(['m-batch-zstd', 'm-cs0x10000-lz4', 'm-lz4_block', 'm-none', 'm-prefetch-fs', 'm-sha256', 'm-zstd'])(
    '%s shows the tree of its source',
    (name) => {
      expect(differences(name, 'mini', fromDirectory)).toEqual([]);
    },
  );

  it('vhead-y-zstd shows the tree of its source', () => {
    expect(differences('vhead-y-zstd', 'tiny', fromDirectory)).toEqual([]);
  });

  it('l-merge-tar shows the merged layers', () => {
    expect(differences('l-merge-tar', 'layers-merged', () => [])).toEqual([]);
  });

  it.each(['t-tar-rafs', 't-targz-ref'])('%s shows what a tar can say of its source', (name) => {
    const withoutNanoseconds = (path: string, facts: EntryFacts): readonly Fact[] => {
      return facts.mtime.endsWith('000000000') ? fromDirectory(path, facts) : [...fromDirectory(path, facts), 'mtime'];
    };
    // Some of these a tar cannot hold, the others the real builder does not read from it.
    expect(differences(name, 'mini', withoutNanoseconds)).toEqual([
      'dirs/many/F00004 with space\\x09and\\nnewline: missing',
      'dirs/many/F00064 with space\\x09and\\nnewline: missing',
      'hl/ff_b: missing',
      'hl/sl_b: missing',
      'spec/sock: missing',
      'times/minus1: mtime -1000000000 expected, 0 found',
      'times/y1901: mtime -2147483648000000000 expected, 0 found',
      'xa/big: missing',
      'xa/user: missing',
    ]);
  });

  it('an image of version 2.2 is read', () => {
    const old = decodeBootstrap(fixture('nydus/rafs-v6/rafs-v6-2.2.boot'));
    expect([...walk(old.root)].map(({ path }) => path)).toEqual(['/', '/lib.rs', '/sync_io.rs']);
    expect(nodeAt(old.root, '/lib.rs')).toMatchObject({ kind: 'regular', size: 16931 });
    expect(nodeAt(old.root, 'sync_io.rs')).toMatchObject({ kind: 'regular', size: 13400 });
    expect(old.blobs).toMatchObject([
      {
        id: 'be7d77eeb719f70884758d1aa800ed0fb09d701aaec469964e9d54325f0d5fef',
        chunkCount: 2,
        compressor: 'zstd',
        digester: 'blake3',
        compressedSize: 14554,
        uncompressedSize: 36864,
        tocSize: 1024,
        chunkInfo: { compressor: 'none', offset: 8314, compressedSize: 32, uncompressedSize: 32 },
      },
    ]);
  });

  it.each(['m-zstd', 'm-cs0x10000-lz4', 'l-merge-tar', 't-tar-rafs', 'm-prefetch-fs'])(
    '%s: a blob has the chunks of the files, whoever looks at the files',
    (name) => {
      const { image: read, chunksOf } = readBootstrap(fixture(`nydus-tools/${name}/bootstrap`));
      const found = read.blobs.map((blob, index) => placesOf(new ChunkMap(blob, chunksOf(index))));
      const expected = chunksByBlob(read).map((chunks, index) =>
        placesOf(new ChunkMap(read.blobs[index] as (typeof read.blobs)[0], chunks)),
      );
      expect(found).toEqual(expected);
      expect(found.flat().length).toBeGreaterThan(0);
    },
  );

  it('files that are to be prefetched are those of the tree', () => {
    const { root, prefetch } = image('m-prefetch-fs');
    const all = new Set([...walk(root)].map(({ node }) => node));
    expect(prefetch.length).toBeGreaterThan(0);
    expect(prefetch.every((node) => all.has(node))).toBe(true);
  });

  it('files know their chunks', () => {
    const { root, chunkSize, blobs } = image('m-cs0x10000-lz4');
    expect(chunkSize).toBe(0x10000);
    const file = nodeAt(root, '/sizes/c300001') as RegularFile;
    expect(file.content.map((chunk) => chunk.uncompressedSize)).toEqual([65536, 65536, 65536, 65536, 37857]);
    expect(new Set(file.content.map((chunk) => blobs[chunk.blobIndex]?.compressor))).toEqual(new Set(['lz4_block']));
    const again = nodeAt(root, '/hl/five_1') as RegularFile;
    expect(again).toBe(nodeAt(root, '/aaa_five_5'));
  });

  it('chunks of batches have the size of their batch elsewhere', () => {
    const { root } = image('m-batch-zstd');
    const small = (nodeAt(root, '/sizes/c1') as RegularFile).content;
    expect(small).toMatchObject([{ batched: true, compressedSize: 0, uncompressedSize: 1 }]);
    const large = (nodeAt(root, '/sizes/c1048577') as RegularFile).content;
    expect(large[0]).toMatchObject({ batched: false, compressed: true, uncompressedSize: 1048576 });
  });

  it('the prefetch table is a list of files', () => {
    const { root, prefetch } = image('m-prefetch-fs');
    const expected = ['/sizes', '/hl/five_1', '/dup/same0'].map((path) => nodeAt(root, path));
    expect(prefetch).toHaveLength(3);
    for (const [index, node] of expected.entries()) expect(prefetch[index]).toBe(node);
    expect(image('vhead-y-zstd').prefetch).toEqual([]);
  });
});

interface Malformation {
  readonly name: string;
  readonly change: string;
  /** What was done, where (bytes), and what stands there now. */
  readonly patch: readonly (readonly [string, number | string, (number | string)?])[];
}

/** Changes of which the field that is found wrong is not the one that was changed. */
const FOUND_ELSEWHERE: Readonly<Record<string, string>> = {
  // As a compact inode it has the link count where an extended one has reserved zeros.
  'ino-compact': 'i_nlink',
  'trunc-1': 'length',
  'trunc-1408': 'length',
  'trunc-16391': 'length',
  'append-1': 'length',
};

describe('malformed bootstraps', () => {
  const cases = JSON.parse(fixture('nydus-tools/malformed/index.json').toString()) as Malformation[];

  it('are all in the list, and none is left out', () => {
    expect(cases.filter(({ patch }) => patch.length > 0)).toHaveLength(42);
    expect(decodeBootstrap(fixture('nydus-tools/malformed/valid.boot')).blobs).toHaveLength(1);
  });

  it.each(cases.filter(({ patch }) => patch.length > 0))('$name: $change', ({ name, patch }) => {
    let error: unknown;
    try {
      decodeBootstrap(fixture(`nydus-tools/malformed/${name}.boot`));
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ code: 'data-loss', details: { field: expect.any(String) } });
    const { field, offset } = (error as { details: { field: string; offset: number } }).details;
    expect((error as Error).message).toContain(`${field} at offset ${offset} `);
    const elsewhere = FOUND_ELSEWHERE[name];
    if (elsewhere === undefined) expect(offset).toBe(patch[0]?.[1]);
    else expect(field).toBe(elsewhere);
  });
});
