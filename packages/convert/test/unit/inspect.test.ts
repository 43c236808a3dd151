import {
  type Attributes,
  BLOB_FEATURES,
  type BlobInfo,
  type Chunk,
  type Directory,
  type Node,
  nodeAt,
  type RafsImage,
} from '@pantala/rafs';
import { describe, expect, test } from 'vitest';
import { linkCounts, treeEntries } from '../../src/inspect/entries.ts';
import { listedEntry, listedLine, modeLetters } from '../../src/inspect/listing.ts';
import { mountPlan } from '../../src/inspect/mount-plan.ts';
import { imageStatistics, sharedChunks } from '../../src/inspect/statistics.ts';

const ATTRIBUTES: Attributes = {
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtime: { seconds: 1_600_000_000, nanoseconds: 5 },
  xattrs: new Map(),
};

const ID = 'ab'.repeat(32);

function chunk(index: number, content: number, size: number): Chunk {
  return {
    digest: new Uint8Array(32).fill(content),
    blobIndex: 0,
    index,
    compressedOffset: index * 1000,
    compressedSize: size / 2,
    uncompressedOffset: index * 4096,
    uncompressedSize: size,
    compressed: true,
    batched: false,
    crc32c: undefined,
  };
}

function file(...content: Chunk[]): Node {
  const size = content.reduce((sum, { uncompressedSize }) => sum + uncompressedSize, 0);
  return { kind: 'regular', attributes: ATTRIBUTES, size, content };
}

function folder(entries: Record<string, Node>): Directory {
  return { kind: 'directory', attributes: { ...ATTRIBUTES, mode: 0o755 }, entries: new Map(Object.entries(entries)) };
}

function image(root: Directory, prefetch: readonly Node[] = []): RafsImage {
  const blob: BlobInfo = {
    id: ID,
    chunkSize: 1024,
    chunkCount: 4,
    compressor: 'zstd',
    digester: 'blake3',
    features: BLOB_FEATURES.aligned,
    compressedSize: 3000,
    uncompressedSize: 16_384,
    chunkInfo: { compressor: 'none', offset: 2000, compressedSize: 64, uncompressedSize: 64 },
    tocSize: 0,
    tocDigest: new Uint8Array(32),
    metaDigest: new Uint8Array(32),
    metaSize: 0,
  };
  return {
    root,
    blobs: [blob],
    chunkSize: 1024,
    compressor: 'zstd',
    digester: 'blake3',
    explicitIds: true,
    blockSize: 4096,
    prefetch,
  };
}

const twice = file(chunk(0, 1, 1024), chunk(1, 2, 200));
const TREE = folder({
  b: folder({ z: twice, a: file() }),
  'b-': file(chunk(0, 1, 1024)),
  a: twice,
  '!': { kind: 'symlink', attributes: ATTRIBUTES, target: 'x\n' },
});

function entry(path: string): Node {
  return nodeAt(TREE, path) ?? TREE;
}

describe('entries of a tree', () => {
  test('come in the order of their bytes, a directory before what is in it', () => {
    const paths = [...treeEntries(TREE)].map(({ path, first }) => [path, first]);
    expect(paths).toEqual([
      ['.', undefined],
      ['!', undefined],
      ['a', undefined],
      ['b', undefined],
      ['b/a', undefined],
      ['b/z', 'a'],
      ['b-', undefined],
    ]);
  });

  test('are as deep as they like', () => {
    let deep = folder({});
    for (let level = 0; level < 50_000; level++) deep = folder({ d: deep });
    let count = 0;
    for (const { node } of treeEntries(deep)) if (node.kind === 'directory') count++;
    expect(count).toBe(50_001);
  });

  test('have links', () => {
    const counts = linkCounts(TREE);
    expect([counts.get(twice), counts.get(TREE), counts.get(entry('b'))]).toEqual([2, 3, 2]);
  });
});

describe('listing', () => {
  test('permissions as ls writes them', () => {
    expect(modeLetters('directory', 0o1755)).toBe('drwxr-xr-t');
    expect(modeLetters('regular', 0o4644)).toBe('-rwSr--r--');
    expect(modeLetters('character', 0o2070)).toBe('c---rws---');
    expect(modeLetters('fifo', 0o1000)).toBe('p--------T');
  });

  test('a line for people is one line whatever the name', () => {
    const node: Node = { kind: 'symlink', attributes: { ...ATTRIBUTES, mode: 0o777 }, target: 'there\n\xff' };
    expect(listedLine({ path: 'na\nme', node, first: undefined }, 1)).toBe(
      'lrwxrwxrwx    1 0:0                    - 2020-09-13 12:26:40 na\\nme -> there\\n\\xff',
    );
    expect(listedLine({ path: 'b/z', node: twice, first: 'a' }, 2)).toMatch(/^-rw-r--r-- {4}2 .* 1224 .* b\/z = a$/);
  });

  test('plain data keeps bytes that are not UTF-8 and times before 1970', () => {
    const attributes = { ...ATTRIBUTES, mtime: { seconds: -1, nanoseconds: 999_999_999 } };
    const node: Node = { kind: 'block', attributes, major: 8, minor: 17 };
    expect(listedEntry({ path: 'a\xff', node, first: undefined }, 1)).toMatchObject({
      path: 'a\ufffd',
      pathHex: '61ff',
      mode: '0644',
      mtime: '-0.000000001',
      device: '8:17',
    });
    expect(listedEntry({ path: 'b/z', node: twice, first: 'a' }, 2)).toMatchObject({ size: 1224, hardLinkTo: 'a' });
  });
});

describe('statistics', () => {
  test('count what is stored, what is used twice, and what a lazy start fetches', () => {
    const statistics = imageStatistics(image(TREE, [entry('b'), entry('b-')]), 12_288);
    expect(statistics).toMatchObject({
      entries: 7,
      kinds: { directory: 2, regular: 4, symlink: 1 },
      hardLinks: 1,
      fileBytes: 2248,
      referenced: { chunks: 3, bytes: 2248 },
      unique: { chunks: 2, bytes: 1224 },
      storedBytes: 3000,
      lazyStart: { bootstrapBytes: 12_288, metadataBytes: 4160, prefetchFiles: 3, prefetchBytes: 612 },
    });
    expect(statistics.blobs).toEqual([
      { id: ID, storedBytes: 3000, decodedBytes: 16_384, chunks: 4, used: { chunks: 2, bytes: 1224 } },
    ]);
  });

  test('tell what two images share', () => {
    const other = image(folder({ a: file(chunk(7, 2, 200), chunk(8, 3, 100)) }));
    expect(sharedChunks(image(TREE), other)).toEqual({
      shared: { chunks: 1, bytes: 200 },
      own: { chunks: 1, bytes: 1024 },
    });
  });
});

test('a mount plan names devices in the order of the table', () => {
  const plan = mountPlan(image(TREE), '/images/boot', '/cache');
  expect(plan).toEqual({
    type: 'erofs',
    bootstrap: '/images/boot',
    devices: [{ blobId: ID, size: 16_384, cacheFile: `/cache/${ID}.blob.data` }],
    options: ['ro', `device=/cache/${ID}.blob.data`],
    needsFsconfig: false,
  });
});
