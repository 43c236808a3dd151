import { gzipSync, zstdCompressSync } from 'node:zlib';
import { systemLz4 } from '@pantala/linux';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { chunkDigest, compressed, compressInto, decompress, decompressInto } from '../../src/index.ts';

const CONTENT = Buffer.from('Pantala flavescens crosses oceans in swarms. '.repeat(500));

/** Content that shrinks, more or less. */
const contents = fc
  .tuple(fc.uint8Array({ minLength: 1, maxLength: 300 }), fc.integer({ min: 1, max: 60 }))
  .map(([bytes, times]) => Buffer.concat(Array.from({ length: times }, () => bytes)));

const WAYS = [
  { name: 'lz4_block, system', compressor: 'lz4_block', options: { lz4: 'system' } },
  { name: 'lz4_block, npm', compressor: 'lz4_block', options: { lz4: 'bundled' } },
  { name: 'zstd', compressor: 'zstd', options: {} },
] as const;

/** liblz4.so.1 is not on every machine. */
const lacksLz4 = typeof systemLz4() === 'string';
const usable = WAYS.filter(({ name }) => !(lacksLz4 && name === 'lz4_block, system'));

describe.each(usable)('$name', ({ compressor, options }) => {
  test('what is compressed comes back', () => {
    fc.assert(
      fc.property(contents, (content) => {
        const stored = compressed(compressor, content, options);
        if (stored === undefined) return;
        expect(stored.length).toBeLessThan(content.length);
        const back = new Uint8Array(content.length);
        decompressInto(compressor, stored, back, options);
        expect(Buffer.compare(back, content)).toBe(0);
      }),
    );
  });

  test('noise is not stored longer than it is', () => {
    const noise = Buffer.from(Array.from({ length: 64 }, (_, i) => (i * 197 + (i >> 1) * 31) & 0xff));
    expect(compressed(compressor, noise, options)).toBeUndefined();
  });

  test('another length than expected is refused, longer or shorter', () => {
    const stored = compressed(compressor, CONTENT, options) as Uint8Array;
    for (const length of [0, 1, CONTENT.length - 1, CONTENT.length + 1]) {
      expect(() => decompressInto(compressor, stored, new Uint8Array(length), options)).toThrow(`${length} bytes`);
    }
  });

  test('damaged data never writes beyond the target', () => {
    const stored = Buffer.from(compressed(compressor, CONTENT, options) as Uint8Array);
    fc.assert(
      fc.property(fc.nat(stored.length - 1), fc.integer({ min: 1, max: 255 }), fc.nat(stored.length), (at, by, cut) => {
        const damaged = Buffer.from(stored);
        damaged[at] = (damaged[at] as number) ^ by;
        const room = new Uint8Array(CONTENT.length + 64).fill(0xee);
        try {
          decompressInto(compressor, damaged.subarray(0, cut), room.subarray(0, CONTENT.length), options);
        } catch (error) {
          expect(error).toMatchObject({ code: 'data-loss' });
        }
        expect(room.subarray(CONTENT.length).every((byte) => byte === 0xee)).toBe(true);
      }),
    );
  });
});

test.skipIf(lacksLz4)('both LZ4 libraries read what the other writes', () => {
  for (const [writer, reader] of [
    ['system', 'bundled'],
    ['bundled', 'system'],
  ] as const) {
    const stored = compressed('lz4_block', CONTENT, { lz4: writer }) as Uint8Array;
    const back = new Uint8Array(CONTENT.length);
    decompressInto('lz4_block', stored, back, { lz4: reader });
    expect(Buffer.from(back).equals(CONTENT)).toBe(true);
  }
});

test('memory that threads share is compressed like any other', () => {
  const shared = new Uint8Array(new SharedArrayBuffer(2 * CONTENT.length));
  shared.set(CONTENT);
  for (const { compressor, options } of usable) {
    const target = shared.subarray(CONTENT.length);
    const length = compressInto(compressor, shared.subarray(0, CONTENT.length), target, options);
    expect(Buffer.from(decompress(compressor, target.slice(0, length), CONTENT.length)).equals(CONTENT)).toBe(true);
  }
});

test('gzip is read, several members too, and not written', () => {
  const members = Buffer.concat([gzipSync(CONTENT), gzipSync(CONTENT)]);
  expect(decompress('gzip', members, 2 * CONTENT.length)).toHaveLength(2 * CONTENT.length);
  expect(() => decompress('gzip', members, CONTENT.length)).toThrow('gzip data');
  expect(() => compressed('gzip', CONTENT)).toThrow('gzip is only read');
});

test('frames of another zstd are read', () => {
  expect(Buffer.from(decompress('zstd', zstdCompressSync(CONTENT), CONTENT.length)).equals(CONTENT)).toBe(true);
});

test('content of no compressor must have the length it is said to have', () => {
  expect(decompress('none', CONTENT, CONTENT.length)).toHaveLength(CONTENT.length);
  expect(() => decompress('none', CONTENT, CONTENT.length - 1)).toThrow('none data');
  expect(() => decompress('none', CONTENT, CONTENT.length + 1)).toThrow('none data');
});

test('digests of the empty content are the published ones', () => {
  const empty = new Uint8Array();
  expect(chunkDigest('blake3', empty).toString('hex')).toBe(
    'af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262',
  );
  expect(chunkDigest('sha256', empty).toString('hex')).toBe(
    'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
  );
});
