import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { byteString } from '@pantala/base';
import type { TarEntry, TarPiece } from '@pantala/oci';
import {
  decodeBootstrap,
  encodeBootstrap,
  type Node,
  nodeAt,
  readBlobSections,
  readSection,
  walk,
} from '@pantala/rafs';
import { describe, expect, test } from 'vitest';
import { buildFromTar, type LayerOptions } from '../../src/index.ts';
import { contentsOf, FIXTURES, fileDigests, MemorySink, tarFixture } from './lib/build.ts';
import { member, noise, stream } from './lib/members.ts';

async function built(members: AsyncIterable<TarEntry>, options: LayerOptions) {
  const sink = new MemorySink();
  const layer = await buildFromTar(members, sink, options);
  const blobs = new Map(layer.written === undefined ? [] : [[layer.written.id, sink.bytes]]);
  return { ...layer, sink, blobs };
}

const expected = JSON.parse(readFileSync(join(FIXTURES, 'src/mini.expect.json'), 'utf8')) as Record<
  string,
  { sha?: string }
>;

const MATRIX: LayerOptions[] = [
  { compressor: 'none' },
  { compressor: 'lz4_block' },
  { compressor: 'lz4_block', lz4: 'bundled' },
  { compressor: 'zstd' },
  { digester: 'sha256' },
  { chunkSize: 0x1000 },
  { chunkSize: 0x100_0000 },
  { batchSize: 0x1_0000 },
  { batchSize: 0x1000, chunkSize: 0x1000, compressor: 'lz4_block' },
  { toc: true },
  { toc: true, inlineBootstrap: true, compressor: 'lz4_block' },
  { inlineBootstrap: true, batchSize: 0x10_0000 },
];

describe('a layer with every kind of entry', () => {
  test.each(MATRIX)('%o: all files have their content', async (options) => {
    const { image, blobs } = await built(tarFixture('mini.tar.gz'), options);
    const digests = await fileDigests(image, blobs);
    expect(digests.size).toBeGreaterThan(50);
    for (const [path, digest] of digests) {
      const known = expected[path.slice(1)] ?? expected[Buffer.from(path.slice(1), 'latin1').toString()];
      if (known?.sha !== undefined) expect([path, digest]).toEqual([path, known.sha]);
    }
    expect([...walk(decodeBootstrap(encodeBootstrap(image)).root)].length).toBe([...walk(image.root)].length);
  });

  test('what comes out depends on nothing but the source', async () => {
    const ways = await Promise.all(
      [1, 2, 5].map(async (workers) => {
        const { image, written } = await built(tarFixture('mini.tar.gz'), { workers, batchSize: 0x1_0000, toc: true });
        return { id: written?.id, bootstrap: byteString(encodeBootstrap(image)) };
      }),
    );
    expect(ways[1]).toEqual(ways[0]);
    expect(ways[2]).toEqual(ways[0]);
  });

  test('the bootstrap in the blob shows the same tree', async () => {
    const { image, sink } = await built(tarFixture('mini.tar.gz'), { toc: true, inlineBootstrap: true });
    const { bytes } = sink;
    const stored = {
      name: 'built',
      size: bytes.length,
      read: async ({ start, end }: { start: number; end: number }) => bytes.subarray(start, end),
    };
    const { bootstrap } = await readBlobSections(stored);
    if (bootstrap === undefined) throw new Error('no bootstrap');
    const inlined = decodeBootstrap(await readSection(stored, bootstrap, 'bootstrap'));
    expect(inlined.blobs[0]?.id).toBe('x'.repeat(64));
    expect([...walk(inlined.root)].map(({ path }) => path)).toEqual([...walk(image.root)].map(({ path }) => path));
  });
});

describe('chunks', () => {
  test('the same content is stored once, in one file and in several', async () => {
    const twice = Buffer.concat([noise(4096, 1), noise(4096, 1), noise(100, 2)]);
    const { image, sink } = await built(stream([member('a', twice), member('b', twice)]), {
      chunkSize: 4096,
      compressor: 'none',
    });
    expect(image.blobs[0]?.chunkCount).toBe(2);
    expect(sink.bytes.subarray(0, 4096).equals(noise(4096, 1))).toBe(true);
  });

  test('pieces of any size give the same chunks', async () => {
    const content = noise(100_000, 3);
    const ids = await Promise.all(
      [1, 7, 4096, 33_333, 100_000].map(async (step) => {
        const { written } = await built(stream([member('a', content, step)]), { chunkSize: 0x2000 });
        return written?.id;
      }),
    );
    expect(new Set(ids).size).toBe(1);
  });

  test('holes become zeros, wherever they begin and end', async () => {
    const pieces: TarPiece[] = [
      noise(5000, 1),
      { hole: true, length: 4096 * 5 },
      noise(3000, 2),
      { hole: true, length: 100 },
      noise(10, 3),
      { hole: true, length: 4096 * 3 + 17 },
    ];
    const flat = Buffer.concat(pieces.map((piece) => ('hole' in piece ? Buffer.alloc(piece.length) : piece)));
    const { image, blobs, written } = await built(stream([member('a', pieces)]), { chunkSize: 4096 });
    const other = await built(stream([member('a', flat)]), { chunkSize: 4096 });
    expect(written).toEqual(other.written);
    expect(await fileDigests(image, blobs)).toEqual(await fileDigests(other.image, other.blobs));
  });

  test('a hundred gigabytes of holes are one chunk, in a moment', async () => {
    const size = 100 * 1024 ** 3;
    const { image, sink } = await built(stream([member('a', [{ hole: true, length: size }])]), {});
    expect(image.blobs[0]?.chunkCount).toBe(1);
    const file = nodeAt(image.root, 'a');
    expect(file?.kind === 'regular' && file.content.length).toBe(size / 1024 ** 2);
    expect(sink.bytes.length).toBeLessThan(10_000);
  });

  test('a layer without content has no blob', async () => {
    const { image, written } = await built(stream([member('empty', new Uint8Array())]), { toc: true });
    expect(written).toBeUndefined();
    expect(image.blobs).toEqual([]);
    expect(decodeBootstrap(encodeBootstrap(image)).root.entries.size).toBe(1);
  });

  test('what a dictionary has is not stored again', async () => {
    const [known, fresh] = [noise(9000, 1), noise(9000, 2)];
    const options = { chunkSize: 4096 } as const;
    const dictionary = await built(stream([member('known', known), member('unused', noise(9000, 3))]), options);
    const image = await built(stream([member('new', fresh), member('old', known)]), {
      ...options,
      dictionaries: [dictionary.image],
    });
    expect(image.image.blobs.map(({ id }) => id)).toEqual([image.written?.id, dictionary.written?.id]);
    expect(image.image.blobs[0]?.chunkCount).toBe(3);
    const blobs = new Map([...image.blobs, ...dictionary.blobs]);
    await contentsOf(decodeBootstrap(encodeBootstrap(image.image)), blobs);

    const nothing = await built(stream([member('old', known)]), { ...options, dictionaries: [dictionary.image] });
    expect(nothing.written).toBeUndefined();
    expect(nothing.image.blobs.map(({ id }) => id)).toEqual([dictionary.written?.id]);
    await contentsOf(decodeBootstrap(encodeBootstrap(nothing.image)), dictionary.blobs);
  });

  test('a digest that only begins like one of a dictionary is another one', async () => {
    const content = Buffer.from('much of the same, '.repeat(1000));
    const plain = await built(stream([member('a', content)]), {});
    const file = nodeAt(plain.image.root, 'a');
    const chunk = file?.kind === 'regular' ? file.content[0] : undefined;
    if (file === undefined || chunk === undefined) throw new Error('no chunk');
    const digest = Buffer.from(chunk.digest);
    digest[31] = (digest[31] as number) ^ 1;
    const root = {
      ...plain.image.root,
      entries: new Map([['a', { ...file, content: [{ ...chunk, digest }] } as Node]]),
    };
    const again = await built(stream([member('a', content)]), { dictionaries: [{ ...plain.image, root }] });
    expect(again.written).toEqual(plain.written);
    expect(again.image.blobs).toEqual(plain.image.blobs);
  });

  test('small files are compressed together, and read one by one', async () => {
    const small = Array.from({ length: 200 }, (_, i) =>
      member(`small/${i}`, Buffer.from(`number ${i} of two hundred `.repeat(10))),
    );
    const alone = await built(stream(small), {});
    const together = await built(stream(small), { batchSize: 0x4000 });
    expect(together.written?.size).toBeLessThan((alone.written?.size as number) / 1.5);
    expect(await fileDigests(together.image, together.blobs)).toEqual(await fileDigests(alone.image, alone.blobs));
  });
});

describe('what goes wrong', () => {
  test('a sink that fails ends the build with its error', async () => {
    const sink = {
      async write(): Promise<void> {
        throw Object.assign(new Error('no space left'), { code: 'ENOSPC' });
      },
    };
    await expect(buildFromTar(tarFixture('mini.tar.gz'), sink, {})).rejects.toMatchObject({ code: 'disk-full' });
  });

  test('a slow sink holds back the source', async () => {
    const content = noise(1024 * 1024, 1);
    let taken = 0;
    let written = 0;
    let ahead = 0;
    async function* plenty(): AsyncGenerator<TarEntry> {
      for (; taken < 60; taken++) {
        content.writeUInt32LE(taken);
        yield member(`${taken}`, content, 65_536);
      }
    }
    const slow = {
      async write(parts: readonly Uint8Array[]): Promise<void> {
        await new Promise(setImmediate);
        written += parts.reduce((sum, part) => sum + part.length, 0) / content.length;
        ahead = Math.max(ahead, taken - written);
      },
    };
    await buildFromTar(plenty(), slow, { compressor: 'none', workers: 2 });
    expect(taken).toBe(60);
    expect(ahead).toBeLessThan(30);
  });

  test('a signal ends it', async () => {
    const stop = new AbortController();
    async function* stopping(): AsyncGenerator<TarEntry> {
      for (let i = 0; ; i++) {
        if (i === 50) stop.abort();
        yield member(`${i}`, noise(100_000, i), 65_536);
      }
    }
    await expect(buildFromTar(stopping(), new MemorySink(), { signal: stop.signal })).rejects.toMatchObject({
      code: 'cancelled',
    });
  });

  test('a member that ends too early', async () => {
    const short = { ...member('a', noise(10, 1)), size: 11 };
    await expect(built(stream([short]), {})).rejects.toMatchObject({ code: 'data-loss' });
  });

  test.each<[LayerOptions, string]>([
    [{ chunkSize: 5000 }, 'chunk size'],
    [{ chunkSize: 2 ** 25 }, 'chunk size'],
    [{ batchSize: 2 ** 21 }, 'batch size'],
    [{ workers: 0 }, '0 threads'],
  ])('%o is refused', async (options, message) => {
    await expect(built(stream([]), options)).rejects.toThrow(message);
  });
});
