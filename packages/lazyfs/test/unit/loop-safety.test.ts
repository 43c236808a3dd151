import type { Chunk, Directory, RafsImage, RegularFile } from '@pantala/rafs';
import { expect, test } from 'vitest';
import { mixedUpFile } from '../../src/mounting/loop-safety.ts';

const ATTRIBUTES = { mode: 0o644, uid: 0, gid: 0, mtime: { seconds: 0, nanoseconds: 0 }, xattrs: new Map() };
const CHUNK = 65_536;

/** An image with one file, of chunks that lie in a blob at a place in chunks; the last has 100 bytes. */
function imageOf(places: readonly (readonly [blob: number, place: number])[], blobs = 2): RafsImage {
  const content = places.map(
    ([blobIndex, place], at): Chunk => ({
      digest: new Uint8Array(32),
      blobIndex,
      index: place,
      compressedOffset: 0,
      compressedSize: 10,
      uncompressedOffset: place * CHUNK,
      uncompressedSize: at === places.length - 1 ? 100 : CHUNK,
      compressed: true,
      batched: false,
      crc32c: undefined,
    }),
  );
  const file: RegularFile = { kind: 'regular', attributes: ATTRIBUTES, size: 0, content };
  const root: Directory = { kind: 'directory', attributes: ATTRIBUTES, entries: new Map([['file', file]]) };
  const blob = {} as RafsImage['blobs'][number];
  return {
    root,
    blobs: Array.from({ length: blobs }, () => blob),
    chunkSize: CHUNK,
    compressor: 'none',
    digester: 'blake3',
    explicitIds: true,
    blockSize: 4096,
    prefetch: [],
  };
}

test('a chunk that follows by number in another blob is mixed up', () => {
  expect(
    mixedUpFile(
      imageOf([
        [0, 4],
        [1, 5],
      ]),
    ),
  ).toBe('/file');
  expect(
    mixedUpFile(
      imageOf([
        [1, 0],
        [1, 1],
        [0, 2],
        [0, 9],
      ]),
    ),
  ).toBe('/file');
});

test('one that follows in its own blob, or elsewhere, is not', () => {
  expect(
    mixedUpFile(
      imageOf([
        [0, 4],
        [0, 5],
      ]),
    ),
  ).toBeUndefined();
  expect(
    mixedUpFile(
      imageOf([
        [0, 4],
        [1, 4],
      ]),
    ),
  ).toBeUndefined();
  expect(
    mixedUpFile(
      imageOf([
        [0, 4],
        [1, 6],
        [0, 5],
      ]),
    ),
  ).toBeUndefined();
  expect(
    mixedUpFile(
      imageOf(
        [
          [0, 4],
          [1, 5],
        ],
        1,
      ),
    ),
  ).toBeUndefined();
});
