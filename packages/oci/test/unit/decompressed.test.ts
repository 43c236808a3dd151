import { randomBytes } from 'node:crypto';
import { constants, deflateRawSync, gzipSync, zstdCompressSync } from 'node:zlib';
import { type Compression, type DecompressOptions, decompressed } from '@pantala/oci';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { body, END, fixture, header, inPieces, readTar } from '../support/tar-blocks.ts';

const SKIPPABLE = Buffer.from('502a4d180400000061626364', 'hex');
const STEPS = [1, 3, 1000, 1 << 20];

async function all(bytes: Uint8Array, step = bytes.length, options?: DecompressOptions): Promise<string> {
  const parts: Buffer[] = [];
  for await (const piece of decompressed(inPieces(bytes, Math.max(1, step)), options)) parts.push(Buffer.from(piece));
  return Buffer.concat(parts).toString('latin1');
}

/** A gzip member with every optional field of its header. */
function fullMember(content: string): Buffer {
  const plain = gzipSync(content);
  const optional = Buffer.from('\x03\0xyzname\0comment\0\x12\x34', 'latin1');
  const head = Buffer.from(plain.subarray(0, 10));
  head[3] = 0x1e;
  return Buffer.concat([head, optional, deflateRawSync(content), plain.subarray(plain.length - 8)]);
}

describe('gzip', () => {
  const hello = gzipSync('hello ');
  const world = gzipSync('world');
  const cases: [string, Buffer, string][] = [
    ['one member', hello, 'hello '],
    ['several members', Buffer.concat([hello, world, gzipSync(''), world]), 'hello worldworld'],
    ['zeros behind the end', Buffer.concat([hello, Buffer.alloc(5000)]), 'hello '],
    ['garbage behind the end', Buffer.concat([hello, world, Buffer.from('garbage')]), 'hello world'],
    ['a last byte that begins like a member', Buffer.concat([hello, Buffer.from([0x1f])]), 'hello '],
    ['a member behind zeros', Buffer.concat([hello, Buffer.alloc(3), world]), 'hello '],
    ['all fields of a header', Buffer.concat([fullMember('a'), fullMember('b')]), 'ab'],
  ];
  test.each(cases)('%s', async (_, bytes, text) => {
    for (const step of STEPS) expect(await all(bytes, step)).toBe(text);
  });

  test('pieces that are given back are whole while they are read, across all seams of a tar', async () => {
    const content = randomBytes(1_048_000);
    // Members drift against the pieces of 1 MiB, so that headers, long names and contents lie across seams.
    const members = Array.from({ length: 8 }, (_, i) => {
      const name = `${'long/'.repeat(60)}${i}`;
      const long = [header({ name: '././@LongLink', type: 'L', size: name.length + 1 }), body(`${name}\0`)];
      return [...long, header({ size: content.length }), body(content)];
    });
    const archive = gzipSync(Buffer.concat([...members.flat(), END]));
    const kept = await readTar(decompressed(inPieces(archive, 100_000)));
    const freed = await readTar(decompressed(inPieces(archive, 100_000), { frees: true }));
    expect(kept).toHaveLength(members.length);
    for (const [index, entry] of freed.entries()) {
      expect(entry.path).toBe(kept[index]?.path);
      expect(entry.content.equals(content)).toBe(true);
    }
  });

  test('members of all sizes in turn', async () => {
    const contents = [10, 300_000, 262_144, 262_145, 5, 3_000_000, 1, 0, 700_000].map((size) => randomBytes(size));
    const bytes = Buffer.concat(contents.map((content) => gzipSync(content)));
    const text = Buffer.concat(contents).toString('latin1');
    for (const step of [777, 65_536, 1 << 22]) expect((await all(bytes, step)) === text).toBe(true);
  });

  const cut = gzipSync(randomBytes(5000));
  test.each([1, 9, 12, 2000, cut.length - 8, cut.length - 1])('cut off after %i bytes', async (length) => {
    for (const before of [Buffer.alloc(0), hello]) {
      const bytes = Buffer.concat([before, cut.subarray(0, length)]);
      // A byte behind a whole member is garbage, not a member.
      if (length === 1) continue;
      await expect(all(bytes)).rejects.toMatchObject({ code: 'data-loss' });
      await expect(all(bytes, 1)).rejects.toMatchObject({ code: 'data-loss' });
    }
  });

  test.each([
    ['checksum', -8],
    ['length', -4],
    ['data', 12],
  ])('a wrong %s', async (_, at) => {
    const bytes = Buffer.from(cut);
    bytes[at < 0 ? bytes.length + at : at] = (bytes.at(at) as number) ^ 0xff;
    await expect(all(bytes)).rejects.toMatchObject({ code: 'data-loss' });
    await expect(all(Buffer.concat([hello, bytes]))).rejects.toThrow(`at byte ${hello.length} is damaged`);
  });
});

describe('zstd', () => {
  const cases: [string, Buffer, string][] = [
    ['one frame', zstdCompressSync('hello'), 'hello'],
    [
      'several frames and ones to skip',
      Buffer.concat([SKIPPABLE, zstdCompressSync('hello '), SKIPPABLE, zstdCompressSync('world'), SKIPPABLE]),
      'hello world',
    ],
    ['an empty frame', Buffer.concat([zstdCompressSync(''), zstdCompressSync('x')]), 'x'],
  ];
  test.each(cases)('%s', async (_, bytes, text) => {
    for (const step of STEPS) expect(await all(bytes, step)).toBe(text);
  });

  test('large frames in turn', async () => {
    const contents = [3_000_000, 5, 700_000].map((size) => randomBytes(size));
    const bytes = Buffer.concat(contents.map((content) => zstdCompressSync(content)));
    const text = Buffer.concat(contents).toString('latin1');
    for (const step of [777, 65_536, 1 << 22]) expect((await all(bytes, step)) === text).toBe(true);
  });

  test('something else behind the last frame is damage', async () => {
    const bytes = Buffer.concat([zstdCompressSync('hello'), Buffer.from('garbage')]);
    for (const step of STEPS) await expect(all(bytes, step)).rejects.toMatchObject({ code: 'data-loss' });
  });

  test('cut off', async () => {
    const bytes = zstdCompressSync(randomBytes(5000));
    for (const length of [6, 1000, bytes.length - 1])
      await expect(all(bytes.subarray(0, length))).rejects.toMatchObject({ code: 'data-loss' });
  });

  test('a window beyond what anybody needs', async () => {
    // Magic, a descriptor without content size, a window of 2^31, one empty last block.
    const bytes = Buffer.from('28b52ffd00a8010000', 'hex');
    await expect(all(bytes)).rejects.toMatchObject({ code: 'data-loss' });
    const frame = zstdCompressSync(Buffer.alloc(100), { params: { [constants.ZSTD_c_windowLog]: 27 } });
    expect(await all(frame)).toHaveLength(100);
  });
});

describe('any stream', () => {
  test.each([
    ['gzip', gzipSync('x')],
    ['zstd', zstdCompressSync('x')],
    ['none', Buffer.from('x')],
    ['none', Buffer.alloc(0)],
  ])('%s is told by its first bytes', async (expected, bytes) => {
    const told: Compression[] = [];
    await all(bytes, 1, { onCompression: (compression) => told.push(compression) });
    expect(told).toEqual([expected]);
  });

  test('other compressions are named', async () => {
    await expect(all(Buffer.from('fd377a585a000004', 'hex'))).rejects.toThrow('compressed with xz');
    await expect(all(Buffer.from('425a6839314159265359', 'hex'))).rejects.toThrow('compressed with bzip2');
  });

  test.each([
    ['gzip', gzipSync(Buffer.alloc(3_000_000))],
    ['zstd', zstdCompressSync(Buffer.alloc(3_000_000))],
    ['none', Buffer.alloc(3_000_000)],
  ])('%s does not grow beyond what is allowed', async (_, bytes) => {
    await expect(all(bytes, 500, { maxLength: 2_999_999 })).rejects.toThrow('more than 2999999 bytes');
    expect(await all(bytes, 500, { maxLength: 3_000_000 })).toHaveLength(3_000_000);
  });

  test('a reader that stops closes the source', async () => {
    for (const bytes of [gzipSync(randomBytes(3_000_000)), zstdCompressSync(randomBytes(3_000_000)), randomBytes(10)]) {
      let closed = false;
      async function* source() {
        try {
          for (let at = 0; at < bytes.length; at += 5000) yield bytes.subarray(at, at + 5000);
        } finally {
          closed = true;
        }
      }
      for await (const _ of decompressed(source())) break;
      expect(closed).toBe(true);
    }
  });

  test('an error of the source arrives, and so does an aborted signal', async () => {
    const bytes = gzipSync(randomBytes(3_000_000));
    async function* broken() {
      yield bytes.subarray(0, 1_000_000);
      throw new Error('the source broke');
    }
    const read = async (source: AsyncIterable<Uint8Array>, signal?: AbortSignal) => {
      for await (const piece of decompressed(source, signal === undefined ? {} : { signal }))
        expect(piece).toBeDefined();
    };
    await expect(read(broken())).rejects.toThrow('the source broke');
    await expect(read(inPieces(bytes, 1000), AbortSignal.abort())).rejects.toMatchObject({ code: 'cancelled' });
  });

  test.each([
    ['zran-single-stream.tar.gz', 7],
    ['zran-two-streams.tar.gz', 7],
    ['zran-zero-file.tar.gz', 1],
    ['bgzip.tar.gz', 414],
  ])('%s holds %i members', async (name, count) => {
    for (const step of [777, 1 << 20])
      expect(await readTar(decompressed(inPieces(fixture(name), step)))).toHaveLength(count);
  });
});

describe('damaged streams', () => {
  const FULL = process.env.PANTALA_FULL === '1';
  const runs = FULL ? 50_000 : 500;
  const text = Buffer.from('some text that is neither short nor random '.repeat(200));
  const noise = randomBytes(3000);

  test.each([
    ['gzip', Buffer.concat([gzipSync(text), gzipSync(noise), gzipSync('')])],
    ['zstd', Buffer.concat([zstdCompressSync(text), SKIPPABLE, zstdCompressSync(noise)])],
  ])(
    '%s gives what was in it or an error',
    async (_, whole) => {
      const change = fc.tuple(fc.nat(whole.length - 1), fc.nat(255), fc.boolean());
      await fc.assert(
        // Few pieces: each costs a turn of a thread, and all of them one by one have their own tests above.
        fc.asyncProperty(
          fc.array(change, { minLength: 1, maxLength: 3 }),
          fc.integer({ min: 1, max: 12 }),
          async (changes, pieces) => {
            let bytes = Buffer.from(whole);
            for (const [at, value, cut] of changes) {
              if (cut && value < 30) bytes = bytes.subarray(0, at);
              else if (at < bytes.length) bytes[at] = value;
            }
            try {
              await all(bytes, Math.ceil(bytes.length / pieces), { maxLength: 1 << 20 });
            } catch (error) {
              expect(error).toMatchObject({
                code: expect.stringMatching(/^(?:data-loss|invalid-argument|unimplemented)$/),
              });
            }
          },
        ),
        { numRuns: runs },
      );
    },
    FULL ? 1_800_000 : 60_000,
  );
});
