import {
  appendFileSync,
  closeSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { MOUNT_ATTRIBUTES, mountFileSystem, unmount } from '@pantala/linux';
import { type Attributes, encodeBootstrap, NO_XATTRS, type Node, type RafsImage } from '@pantala/rafs';
import { compareTrees, readTree, Scratch } from '@pantala/testkit';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { mountedFacts, writeDevices } from '../packages/rafs/test/support/devices.ts';
import { arbitraryImageOf } from '../packages/rafs/test/support/images.ts';

const FULL = process.env.PANTALA_FULL === '1';
const IMAGES = FULL ? 400 : 30;
/** Images with small chunks have small blobs: every file is read to its end. */
const CHUNK_SIZES = [0x1000, 0x10000];

const supported = process.getuid?.() === 0 && readFileSync('/proc/filesystems', 'utf8').includes('erofs');
const reason = supported ? '' : ' (needs root and a kernel with EROFS)';

async function withMounted(
  bootstrap: string,
  devices: readonly string[],
  target: string,
  look: () => Promise<void>,
): Promise<void> {
  mkdirSync(target, { recursive: true });
  await mountFileSystem({
    type: 'erofs',
    parameters: [['source', bootstrap], ...devices.map((device): [string, string] => ['device', device])],
    attributes: MOUNT_ATTRIBUTES.readOnly,
    target,
  });
  try {
    await look();
  } finally {
    await unmount(target, { detach: false });
  }
}

const ATTRIBUTES: Attributes = {
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtime: { seconds: 1_600_000_000, nanoseconds: 123_456_789 },
  xattrs: NO_XATTRS,
};

describe.skipIf(!supported)(`bootstraps are mounted by the kernel as what they are${reason}`, () => {
  test(`${IMAGES} generated images, every kind of file, on devices of their own and as one device`, async () => {
    await using scratch = Scratch.create('bootstrap-mount');
    const images = fc.sample(arbitraryImageOf(CHUNK_SIZES), { numRuns: IMAGES, seed: 20260720 });
    for (const [number, image] of images.entries()) {
      const folder = scratch.join(String(number));
      mkdirSync(folder);
      const bytes = encodeBootstrap(image);
      writeFileSync(`${folder}/bootstrap`, bytes);
      const devices = writeDevices(image, folder);
      const expected = mountedFacts(image);
      await withMounted(`${folder}/bootstrap`, devices, `${folder}/mount`, async () => {
        expect(compareTrees(expected, await readTree(`${folder}/mount`)), `image ${number}`).toEqual([]);
      });
      if (number % 5 > 0) continue;
      flatten(bytes, image, devices, `${folder}/flat`);
      await withMounted(`${folder}/flat`, [], `${folder}/mount`, async () => {
        expect(compareTrees(expected, await readTree(`${folder}/mount`)), `image ${number}, flat`).toEqual([]);
      });
    }
  });

  test('a directory of 100,000 entries and a file of 6 GiB', async () => {
    await using scratch = Scratch.create('bootstrap-mount');
    const { image, expected } = largeImage();
    writeFileSync(scratch.join('bootstrap'), encodeBootstrap(image));
    // The file begins and ends with something, else it is a hole.
    const device = scratch.join('device');
    writeFileSync(device, 'begin');
    truncateSync(device, LARGE - 3);
    appendFileSync(device, 'end');
    await withMounted(scratch.join('bootstrap'), [device], scratch.join('mount'), async () => {
      const tree = await readTree(scratch.join('mount'), ['large']);
      expect(tree.size).toBe(ENTRIES + 2);
      expect(compareTrees(expected, tree, { without: ['sha'] })).toEqual([]);
      const file = openSync(scratch.join('mount/large'), 'r');
      try {
        expect(readAt(file, 0, 5)).toBe('begin');
        expect(readAt(file, LARGE - 3, 3)).toBe('end');
        expect(readAt(file, LARGE, 1)).toBe('');
      } finally {
        closeSync(file);
      }
    });
  });
});

const ENTRIES = 100_000;
const LARGE = 6 * 2 ** 30;
const MIB = 2 ** 20;

function largeImage() {
  const chunkCount = LARGE / MIB;
  const content = Array.from({ length: chunkCount }, (_, index) => ({
    digest: Buffer.alloc(32, index),
    blobIndex: 0,
    index,
    compressedOffset: index,
    compressedSize: 1,
    uncompressedOffset: index * MIB,
    uncompressedSize: MIB,
    compressed: true,
    batched: false,
    crc32c: undefined,
  }));
  const crowd = new Map<string, Node>();
  for (let index = 0; index < ENTRIES; index++) {
    crowd.set(`entry-${index}`, { kind: 'regular', attributes: ATTRIBUTES, size: 0, content: [] });
  }
  const image: RafsImage = {
    root: {
      kind: 'directory',
      attributes: ATTRIBUTES,
      entries: new Map<string, Node>([
        ['crowd', { kind: 'directory', attributes: ATTRIBUTES, entries: crowd }],
        ['large', { kind: 'regular', attributes: ATTRIBUTES, size: LARGE, content }],
      ]),
    },
    blobs: [
      {
        id: 'ab'.repeat(32),
        chunkSize: MIB,
        chunkCount,
        compressor: 'zstd',
        digester: 'sha256',
        features: 1,
        compressedSize: chunkCount * 17 + 4096,
        uncompressedSize: LARGE,
        chunkInfo: {
          compressor: 'none',
          offset: chunkCount,
          compressedSize: chunkCount * 16,
          uncompressedSize: chunkCount * 16,
        },
        tocSize: 0,
        tocDigest: Buffer.alloc(32),
        metaDigest: Buffer.alloc(32),
        metaSize: 0,
      },
    ],
    chunkSize: MIB,
    compressor: 'zstd',
    digester: 'sha256',
    explicitIds: true,
    blockSize: 4096,
    prefetch: [],
  };
  const withoutLarge = { ...image.root, entries: new Map(image.root.entries) };
  withoutLarge.entries.delete('large');
  return { image, expected: mountedFacts({ ...image, root: withoutLarge }) };
}

function readAt(file: number, position: number, length: number): string {
  const bytes = Buffer.alloc(length);
  return bytes.toString('latin1', 0, readSync(file, bytes, 0, length, position));
}

/** One device for bootstrap and blobs, each where its slot says (offset 1408, 128 bytes each, block at 68). */
function flatten(bytes: Buffer, image: RafsImage, devices: readonly string[], path: string): void {
  writeFileSync(path, bytes);
  const file = openSync(path, 'r+');
  try {
    for (const [index, device] of devices.entries()) {
      const block = bytes.readUInt32LE(1408 + 128 * index + 68);
      const content = readFileSync(device);
      writeSync(file, content, 0, content.length, block * image.blockSize);
    }
  } finally {
    closeSync(file);
  }
}
