import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  BLOB_FEATURES,
  ChunkMap,
  decodeChunkInformation,
  decodeGroup,
  decodeMetaHeader,
  encodeChunkInformation,
  needsChunkInformation,
  readBlobSections,
  readChunkInformation,
  readOwnChunkInformation,
  readSection,
  sha256,
} from '../../src/index.ts';
import { type BuildOptions, buildBlob } from './lib/blobs.ts';
import { storedBlob } from './lib/fixtures.ts';

const contents = fc.array(
  fc
    .tuple(fc.uint8Array({ minLength: 1, maxLength: 200 }), fc.integer({ min: 1, max: 40 }))
    .map(([bytes, times]) => Buffer.concat(Array.from({ length: times }, () => bytes))),
  { minLength: 1, maxLength: 20 },
);

const options: fc.Arbitrary<BuildOptions> = fc.record(
  {
    compressor: fc.constantFrom('none', 'lz4_block', 'zstd'),
    digester: fc.constantFrom('blake3', 'sha256'),
    chunkSize: fc.constant(0x10_0000),
    batches: fc.boolean(),
    batched: fc.constant(1500),
    toc: fc.boolean(),
    bootstrap: fc.uint8Array({ minLength: 1, maxLength: 500 }),
  },
  { requiredKeys: ['compressor', 'digester', 'chunkSize', 'batches', 'batched', 'toc'] },
);

describe('a blob that was written', () => {
  test('reads as it was written: sections, chunk information, chunks', async () => {
    await fc.assert(
      fc.asyncProperty(contents, options, async (given, how) => {
        const built = buildBlob(given, how);
        const stored = storedBlob(built.bytes);
        expect(built.blob.compressedSize).toBe(built.bytes.length);

        const sections = await readBlobSections(stored);
        expect(sections.metaHeader?.entries).toBe(given.length);
        expect(sections.toc.length > 0).toBe(how.toc);
        expect(sections.digests !== undefined).toBe(how.toc);
        if (how.bootstrap !== undefined) {
          if (sections.bootstrap === undefined) throw new Error('no bootstrap');
          expect(Buffer.from(await readSection(stored, sections.bootstrap, 'bootstrap')).equals(how.bootstrap)).toBe(
            true,
          );
        }
        const information = await readOwnChunkInformation(stored, sections);
        expect(information).toEqual(await readChunkInformation(stored, built.blob));

        const map = new ChunkMap(built.blob, built.chunks, information);
        const seen: Buffer[] = [];
        for (const group of map.fetchGroups(
          { start: 0, end: built.blob.uncompressedSize },
          { maxLength: 1e9, maxGap: 0 },
        )) {
          for (const { position, content } of decodeGroup(
            group,
            built.bytes.subarray(group.range.start, group.range.end),
          )) {
            seen[position] = Buffer.from(content);
          }
        }
        expect(seen.map((content) => content.toString('hex'))).toEqual(given.map((content) => content.toString('hex')));
      }),
    );
  });

  test('says the digest and the size of its table of contents', () => {
    const { bytes, blob } = buildBlob([Buffer.alloc(9000, 7)], {
      compressor: 'zstd',
      digester: 'sha256',
      chunkSize: 4096,
      batches: false,
      toc: true,
    });
    expect(blob.tocSize).toBe(4 * 128 + 512);
    expect(sha256(bytes.subarray(-blob.tocSize)).equals(blob.tocDigest)).toBe(true);
    expect(blob.features).toBe(0x7000_0021);
  });

  test('keeps the chunk information as a file beside the bootstrap has it', () => {
    const { end, blob } = buildBlob([Buffer.alloc(9000, 7)], {
      compressor: 'zstd',
      digester: 'sha256',
      chunkSize: 4096,
      batches: true,
      batched: 10_000,
      toc: false,
    });
    if (end.meta === undefined) throw new Error('no chunk information');
    const header = decodeMetaHeader(end.meta.header, 0, 'test');
    expect(header.contextCount).toBe(1);
    expect(decodeChunkInformation(end.meta.information, header, 'test').count).toBe(blob.chunkCount);
  });

  test('an empty layer has no blob, but may hold a bootstrap', async () => {
    const { BlobLayout } = await import('../../src/index.ts');
    const layout = new BlobLayout({
      compressor: 'none',
      digester: 'blake3',
      chunkSize: 4096,
      batches: false,
      toc: true,
    });
    const end = layout.finish(sha256(new Uint8Array()), () => Buffer.from('bootstrap'));
    expect(end.blob).toBeUndefined();
    const stored = storedBlob(Buffer.concat(end.parts));
    const { bootstrap, metaHeader } = await readBlobSections(stored);
    expect(metaHeader).toBeUndefined();
    if (bootstrap === undefined) throw new Error('no bootstrap');
    expect(Buffer.from(await readSection(stored, bootstrap, 'bootstrap')).toString()).toBe('bootstrap');
  });
});

describe('entries of chunk information', () => {
  const entry = fc.record({
    gap: fc.nat(5),
    size: fc.integer({ min: 1, max: 2 ** 24 }),
    storedOffset: fc.nat({ max: 2 ** 40 - 1 }),
    storedSize: fc.integer({ min: 1, max: 2 ** 24 - 1 }),
  });

  test.each([1, 2] as const)('version %i keeps every number', (version) => {
    fc.assert(
      fc.property(fc.array(entry, { minLength: 1, maxLength: 50 }), fc.nat(2 ** 31), (entries, base) => {
        let free = base * 4096;
        const offsets = entries.map(({ gap, size }) => {
          const offset = free + gap * 4096;
          free = Math.ceil((offset + size) / 4096) * 4096;
          return offset;
        });
        const information = {
          count: entries.length,
          compressedOffset: Float64Array.from(entries, ({ storedOffset }) => storedOffset),
          compressedSize: Uint32Array.from(entries, ({ storedSize }) => storedSize),
          uncompressedOffset: Float64Array.from(offsets),
          uncompressedSize: Uint32Array.from(entries, ({ size }) => size),
          flags: Uint8Array.from(entries, ({ size, storedSize }) => (size === storedSize ? 0 : 1)),
          context: new Uint32Array(entries.length),
          contextOffset: new Uint32Array(entries.length),
          batches: [],
          restartPoints: [],
        };
        const bytes = encodeChunkInformation(information, version);
        const features = version === 1 ? BLOB_FEATURES.aligned : BLOB_FEATURES.aligned | BLOB_FEATURES.chunkInfoV2;
        const header = {
          features,
          compressor: 'none',
          entries: entries.length,
          offset: 0,
          compressedSize: bytes.length,
          uncompressedSize: bytes.length,
          contextOffset: 0,
          contextSize: 0,
          contextCount: 0,
        } as const;
        expect(decodeChunkInformation(bytes, header, 'test')).toEqual(information);
      }),
    );
  });
});

/** Turns a few bytes of a blob, most of them where it says what it consists of. */
const mutation = fc.record({
  fromEnd: fc.boolean(),
  at: fc.nat(6000),
  byte: fc.nat(255),
});

test('a damaged blob gives an error that says what is wrong, or chunks that have their digests', async () => {
  const how = { compressor: 'zstd', digester: 'blake3', chunkSize: 4096, batches: true, batched: 300 } as const;
  const given = Array.from({ length: 24 }, (_, i) => Buffer.alloc(20 + 97 * i, i));
  const blobs = [
    buildBlob(given, { ...how, toc: false }),
    buildBlob(given, { ...how, toc: true, bootstrap: Buffer.alloc(600, 1) }),
    buildBlob(given, { ...how, compressor: 'lz4_block', batches: false, toc: false, bootstrap: Buffer.alloc(600, 1) }),
  ];
  await fc.assert(
    fc.asyncProperty(
      fc.nat(2),
      fc.array(mutation, { minLength: 1, maxLength: 4 }),
      fc.nat(40),
      async (which, mutations, cut) => {
        const { bytes, blob, chunks } = blobs[which] as (typeof blobs)[0];
        const damaged = Buffer.from(bytes.subarray(0, cut > 30 ? bytes.length - cut : bytes.length));
        for (const { fromEnd, at, byte } of mutations) {
          const place = at % damaged.length;
          damaged[fromEnd ? damaged.length - 1 - place : place] = byte;
        }
        try {
          const stored = storedBlob(damaged);
          const information = await readOwnChunkInformation(stored, await readBlobSections(stored));
          if (needsChunkInformation(blob) && information === undefined) return;
          const map = new ChunkMap(blob, chunks, information);
          for (const group of map.fetchGroups(
            { start: 0, end: blob.uncompressedSize },
            { maxLength: 1e6, maxGap: 100 },
          )) {
            for (const { position, content } of decodeGroup(
              group,
              damaged.subarray(group.range.start, group.range.end),
            )) {
              expect(Buffer.from(content).equals(given[position] as Buffer)).toBe(true);
            }
          }
        } catch (error) {
          expect(error).toMatchObject({
            name: 'PantalaError',
            code: expect.stringMatching(/^(data-loss|invalid-argument)$/),
          });
        }
      },
    ),
    { numRuns: process.env.PANTALA_FULL === '1' ? 100_000 : 5_000 },
  );
}, 600_000);
