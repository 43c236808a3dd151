import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  BLOB_FEATURES,
  ChunkMap,
  chunksByBlob,
  type Directory,
  NO_XATTRS,
  type Node,
  type RafsImage,
} from '../../src/index.ts';
import { buildBlob } from './lib/blobs.ts';

const HOW = { compressor: 'none', digester: 'blake3', chunkSize: 4096, batches: false, toc: false } as const;
const { blob, chunks } = buildBlob(
  Array.from({ length: 40 }, (_, i) => Buffer.alloc(1 + ((i * 937) % 12_000), i)),
  HOW,
);
const map = new ChunkMap(blob, chunks.toReversed());
const ANY = { maxLength: 1e9, maxGap: 0 };

describe('chunks by place', () => {
  test('a range finds exactly the chunks that touch it', () => {
    fc.assert(
      fc.property(fc.nat(blob.uncompressedSize), fc.nat(20_000), (start, length) => {
        const range = { start, end: Math.min(start + length, blob.uncompressedSize) };
        const expected = chunks.flatMap((chunk, position) => {
          const end = chunk.uncompressedOffset + chunk.uncompressedSize;
          return chunk.uncompressedOffset < range.end && end > range.start ? [position] : [];
        });
        const { start: first, end } = map.positionsIn(range);
        expect(Array.from({ length: end - first }, (_, i) => first + i)).toEqual(expected);
      }),
    );
  });

  test('neighbours are fetched together, up to a length, and over a gap where that is cheaper', () => {
    const range = { start: 0, end: blob.uncompressedSize };
    expect(map.fetchGroups(range, ANY)).toHaveLength(1);
    for (const group of map.fetchGroups(range, { maxLength: 20_000, maxGap: 0 })) {
      expect(group.range.end - group.range.start).toBeLessThanOrEqual(20_000);
    }
    const even = (position: number) => position % 2 === 0;
    expect(map.fetchGroups(range, { ...ANY, wanted: even })).toHaveLength(20);
    expect(map.fetchGroups(range, { maxLength: 1e9, maxGap: 12_000, wanted: even })).toHaveLength(1);
  });

  test('only wanted chunks are in the groups', () => {
    const groups = map.fetchGroups({ start: 0, end: 1e9 }, { ...ANY, wanted: (position) => position === 7 });
    expect(groups.flatMap(({ units }) => units.flatMap((unit) => unit.chunks.map(({ position }) => position)))).toEqual(
      [7],
    );
  });
});

describe('what cannot be', () => {
  const first = chunks[0] as (typeof chunks)[0];

  test.each([
    ['chunks that overlap', [first, { ...first, index: 1 }], 'before'],
    ['a chunk beyond the blob', [{ ...first, uncompressedOffset: blob.uncompressedSize }], 'beyond'],
    ['a chunk without bytes', [{ ...first, uncompressedSize: 0 }], 'has 0 bytes'],
    ['two sizes of what is not compressed', [{ ...first, compressedSize: 5, compressed: false }], 'not compressed'],
  ])('%s', (_name, wrong, message) => {
    expect(() => new ChunkMap(blob, wrong)).toThrow(message);
  });

  test('an encrypted blob', () => {
    const encrypted = { ...blob, features: blob.features | BLOB_FEATURES.encrypted };
    expect(() => new ChunkMap(encrypted, chunks)).toThrow('encrypted');
  });

  test('batches without the chunk information of the blob', () => {
    expect(() => new ChunkMap({ ...blob, features: blob.features | BLOB_FEATURES.batch }, chunks)).toThrow(
      'chunk information',
    );
  });
});

test('the chunks of an image come once each, blob by blob', () => {
  const attributes = { mode: 0o644, uid: 0, gid: 0, mtime: { seconds: 0, nanoseconds: 0 }, xattrs: NO_XATTRS };
  const file = { kind: 'regular', attributes, size: 1, content: chunks } as const;
  const root: Directory = {
    kind: 'directory',
    attributes,
    entries: new Map<string, Node>([
      ['a', file],
      ['b', file],
      ['c', { kind: 'directory', attributes, entries: new Map([['d', { ...file, content: chunks.slice(3, 5) }]]) }],
    ]),
  };
  const image: RafsImage = {
    root,
    blobs: [blob],
    chunkSize: 4096,
    compressor: 'none',
    digester: 'blake3',
    explicitIds: true,
    blockSize: 4096,
    prefetch: [],
  };
  const found = chunksByBlob(image).map((of) => of.toSorted((a, b) => a.index - b.index));
  expect(found).toEqual([chunks]);
});
