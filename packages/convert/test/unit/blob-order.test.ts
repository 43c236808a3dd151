import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TarEntry } from '@pantala/oci';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildFromTar, type LayerOptions } from '../../src/index.ts';
import { fileDigests, MemorySink } from './lib/build.ts';
import { member, noise, stream } from './lib/members.ts';

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'pantala-blob-order-'));
});

afterAll(() => {
  rmSync(folder, { recursive: true });
});

/** Half of it shrinks. */
function text(length: number, seed: string): Buffer {
  const content = noise(length, seed);
  for (let at = 32; at < length; at += 64) content.subarray(at, at + 32).fill(0);
  return content;
}

async function built(members: readonly TarEntry[], options: LayerOptions) {
  const sink = new MemorySink();
  const { image, written } = await buildFromTar(stream(members), sink, { spoolFolder: folder, ...options });
  const blobs = new Map([[written?.id as string, sink.bytes]]);
  return { id: written?.id, image, bytes: sink.bytes, files: await fileDigests(image, blobs) };
}

/** As they come, and where patterns put them. Contents repeat before and behind each other, whole and in part. */
const MEMBERS: readonly (readonly [rank: number, entry: TarEntry])[] = [
  [3, member('var/large', text(300_000, 'large'))],
  [3, member('var/again', text(300_000, 'large').subarray(0, 0x2_0000))],
  [3, member('var/small', text(900, 'small'))],
  [1, member('etc/small', text(900, 'small'))],
  [3, member('var/hole', [text(0x1_0000, 'a'), { hole: true, length: 0x3_0000 }, text(10, 'b')])],
  [0, member('usr/bin/sh', text(150_000, 'sh'))],
  [2, member('lib/a.so', text(70_000, 'a.so'))],
  [3, member('lib/a.txt', text(40_000, 'a.txt'))],
  [1, member('etc/zeros', [{ hole: true, length: 0x2_0000 }])],
  [2, member('lib/deep/b.so', text(0x1_0000, 'a'))],
  [1, member('etc/passwd', text(0x1_0000, 'a'))],
  [3, member('empty', [])],
];
const PATTERNS = ['/usr/bin/', 'etc', '/lib/**/*.so', '/usr/bin/sh', '/nothing'];

describe('a tar whose prefetched files come first', () => {
  test.each(
    (['none', 'zstd', 'lz4_block'] as const).flatMap((compressor) =>
      [0, 0x2000].map((batchSize) => ({ compressor, batchSize })),
    ),
  )('$compressor, batches of $batchSize: gives what a tar in that order gives', async (way) => {
    const options = { ...way, chunkSize: 0x1_0000, workers: 2, toc: true, inlineBootstrap: false };
    const sorted = MEMBERS.toSorted(([a], [b]) => a - b).map(([, entry]) => entry);
    const inOrder = await built(sorted, options);
    const asTheyCome = MEMBERS.map(([, entry]) => entry);
    const ordered = await built(asTheyCome, { ...options, prefetch: { policy: 'blob', patterns: PATTERNS } });
    expect(ordered.id).toBe(inOrder.id);
    expect(ordered.files).toEqual(inOrder.files);
    expect(ordered.id).not.toBe((await built(asTheyCome, options)).id);
    expect(ordered.image.prefetch).toEqual([]);
    // The file that holds chunks until the end has no name.
    expect(readdirSync(folder)).toEqual([]);
  });

  test('chunks of a dictionary are taken from there', async () => {
    const options = { chunkSize: 0x1_0000, compressor: 'zstd' } as const;
    const asTheyCome = MEMBERS.map(([, entry]) => entry);
    const dictionary = await built(asTheyCome, options);
    const sink = new MemorySink();
    const { image } = await buildFromTar(stream([...asTheyCome, member('new', text(1000, 'new'))]), sink, {
      ...options,
      dictionaries: [dictionary.image],
      prefetch: { policy: 'blob', patterns: ['/new', '/etc'] },
      spoolFolder: folder,
    });
    expect(image.blobs.map(({ chunkCount }) => chunkCount)).toEqual([1, dictionary.image.blobs[0]?.chunkCount]);
  });

  test('without patterns, or with all files first, the order stays and nothing is kept for later', async () => {
    const asTheyCome = MEMBERS.map(([, entry]) => entry);
    const plain = await built(asTheyCome, {});
    for (const prefetch of [{ policy: 'blob' }, { policy: 'blob', patterns: ['/', '/etc'] }] as const)
      expect((await built(asTheyCome, { prefetch, spoolFolder: join(folder, 'missing') })).id).toBe(plain.id);
  });

  test('a folder that cannot take them is an error that names it', async () => {
    const prefetch = { policy: 'blob', patterns: ['/etc'] } as const;
    const spoolFolder = join(folder, 'missing');
    const failed = built(
      MEMBERS.map(([, entry]) => entry),
      { prefetch, spoolFolder },
    );
    await expect(failed).rejects.toMatchObject({ code: 'not-found', message: expect.stringContaining(spoolFolder) });
  });
});
