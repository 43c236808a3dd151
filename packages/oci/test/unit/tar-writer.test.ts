import { spawnSync } from 'node:child_process';
import { sha256Hex } from '@pantala/base';
import { type TarEntryKind, type TarHeader, type TarMember, walkTar, writeTar } from '@pantala/oci';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { inPieces, type ReadEntry, readTar } from '../support/tar-blocks.ts';

const runs = process.env.PANTALA_FULL === '1' ? 20_000 : 500;

const plain: TarHeader = {
  kind: 'regular',
  path: 'file',
  mode: 0o644,
  uid: 0,
  gid: 0,
  mtime: { seconds: 0, nanoseconds: 0 },
  size: 0,
  linkTarget: '',
  major: 0,
  minor: 0,
  xattrs: new Map(),
};

async function written(members: readonly TarMember[]): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const part of writeTar(members)) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

function bytesArbitrary(minLength: number, maxLength: number): fc.Arbitrary<string> {
  return fc.uint8Array({ minLength, maxLength }).map((bytes) => Buffer.from(bytes).toString('latin1'));
}

const name = bytesArbitrary(1, 255)
  .map((text) => text.replace(/[/\0]/g, '_'))
  .filter((text) => text !== '.' && text !== '..');
const path = fc.array(name, { minLength: 1, maxLength: 5 }).map((names) => names.join('/'));
const time = fc.record({
  seconds: fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
  nanoseconds: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 999_999_999 })),
});
const id = fc.oneof(fc.integer({ min: 0, max: 4000 }), fc.integer({ min: 0, max: 0xffff_ffff }));
const xattrs = fc
  .array(fc.tuple(bytesArbitrary(1, 60), fc.uint8Array({ maxLength: 300 })), { maxLength: 4 })
  .map((entries) => new Map(entries.map(([key, value]) => [`user.${key.replace(/\0/g, '_')}`, Buffer.from(value)])));
const common = { path, mode: fc.integer({ min: 0, max: 0o7777 }), uid: id, gid: id, mtime: time, xattrs };
const zero = { size: fc.constant(0), linkTarget: fc.constant(''), major: fc.constant(0), minor: fc.constant(0) };

const kind = (value: TarEntryKind) => fc.constant(value);
const headerOf: fc.Arbitrary<TarHeader> = fc.oneof(
  fc.record({ ...common, ...zero, kind: fc.oneof(kind('directory'), kind('fifo')) }),
  fc.record({
    ...common,
    ...zero,
    kind: kind('symlink'),
    linkTarget: bytesArbitrary(1, 300).map((t) => t.replace(/\0/g, 'x')),
  }),
  fc.record({ ...common, ...zero, kind: kind('hardlink'), linkTarget: path }),
  fc.record({
    ...common,
    ...zero,
    kind: fc.oneof(kind('character'), kind('block')),
    major: fc.integer({ min: 0, max: 4095 }),
    minor: fc.integer({ min: 0, max: 1_048_575 }),
  }),
);
const file: fc.Arbitrary<TarMember> = fc
  .tuple(fc.record({ ...common, ...zero, kind: kind('regular') }), fc.uint8Array({ maxLength: 2000 }))
  .map(([header, content]) => ({ header: { ...header, size: content.length }, content: () => [content] }));
const sparse: fc.Arbitrary<TarMember> = fc
  .tuple(
    fc.record({ ...common, ...zero, kind: kind('regular') }),
    fc.array(fc.tuple(fc.integer({ min: 1, max: 3000 }), fc.uint8Array({ minLength: 1, maxLength: 900 })), {
      maxLength: 30,
    }),
    fc.integer({ min: 0, max: 5000 }),
  )
  .map(([header, parts, end]) => {
    const pieces = parts.flatMap(([length, data]) => [{ hole: true as const, length }, data]);
    let at = 0;
    const map = parts.flatMap(([length, data]) => {
      const start = at + length;
      at = start + data.length;
      return [start, data.length];
    });
    return {
      header: { ...header, size: at + end },
      content: () => (end === 0 ? pieces : [...pieces, { hole: true as const, length: end }]),
      runs: map,
    };
  });
const member = fc.oneof(
  headerOf.map((header): TarMember => ({ header })),
  file,
  sparse,
);

function contentOf(given: TarMember): Buffer {
  const pieces = [...((given.content?.() ?? []) as Iterable<Uint8Array | { readonly length: number }>)];
  return Buffer.concat(pieces.map((piece) => (piece instanceof Uint8Array ? piece : Buffer.alloc(piece.length))));
}

function asRead({ header }: TarMember, content: Buffer) {
  return {
    ...header,
    xattrs: [...header.xattrs].toSorted(([a], [b]) => (a < b ? -1 : 1)),
    content: content.toString('hex'),
  };
}

function facts(read: ReadEntry) {
  const { kind, path, mode, uid, gid, mtime, size, linkTarget, major, minor, xattrs } = read;
  return asRead(
    { header: { kind, path, mode, uid, gid, mtime, size, linkTarget, major, minor, xattrs } },
    read.content,
  );
}

describe('what is written', () => {
  test('is read back as it was, whatever it is', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(member, { maxLength: 6 }),
        fc.integer({ min: 1, max: 5000 }),
        async (members, length) => {
          const tar = await written(members);
          expect(tar.length % 512).toBe(0);
          const read = await readTar(inPieces(tar, length));
          expect(read.map(facts)).toEqual(members.map((each) => asRead(each, contentOf(each))));
          expect(await written(members)).toEqual(tar);
        },
      ),
      { numRuns: runs },
    );
  });

  test('is, byte for byte, what archive/tar of Go makes of it where ustar is enough', async () => {
    const hello = { content: () => [Buffer.from('hello')] };
    const file = { ...plain, mode: 0o444, size: 5 };
    const tar = await written([
      { header: { ...plain, kind: 'directory', path: 'image', mode: 0o755 } },
      { header: { ...file, path: 'image/image.boot' }, ...hello },
      { header: { ...file, path: `${'d'.repeat(99)}/${'n'.repeat(99)}` }, ...hello },
    ]);
    expect(tar.length).toBe(3584);
    expect(sha256Hex(tar)).toBe('ef7a1bd236a58983104b4868fee1e88907541e41871d21a624f0479bfb70bc89');
  });

  test('the root is ./', async () => {
    const tar = await written([{ header: { ...plain, kind: 'directory', path: '' } }]);
    expect(tar.toString('latin1', 0, 3)).toBe('./\0');
    expect((await readTar(inPieces(tar)))[0]?.path).toBe('');
  });

  test('GNU tar lists it without a word', async () => {
    const members = fc.sample(member, { numRuns: 50, seed: 7 });
    const tar = await written(members.map((each) => ({ ...each, header: { ...each.header, xattrs: new Map() } })));
    const { status, stderr, stdout } = spawnSync('tar', ['tf', '-', '--quoting-style=escape'], { input: tar });
    expect(stderr.toString().replace(/.*hdrcharset.*\n/g, '')).toBe('');
    expect(status).toBe(0);
    expect(stdout.toString().split('\n').length).toBe(51);
  });

  test.each([
    ['less', 5],
    ['more', 1],
  ])('a content of %s than its header says is refused', async (_, size) => {
    const members = [{ header: { ...plain, size }, content: () => [Buffer.from('abc')] }];
    await expect(written(members)).rejects.toMatchObject({ code: 'invalid-argument' });
  });
});

describe('mutated archives', () => {
  const mutations = process.env.PANTALA_FULL === '1' ? 200_000 : 5000;

  test('give members or an error that says what is wrong', async () => {
    const tar = await written(fc.sample(member, { numRuns: 12, seed: 11 }));
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(tar.length - 1), fc.nat(255), fc.constantFrom('set', 'cut', 'fix')), {
          minLength: 1,
          maxLength: 4,
        }),
        async (changes) => {
          let bytes = Buffer.from(tar);
          for (const [at, value, how] of changes) {
            if (how === 'cut' && value < 8) bytes = bytes.subarray(0, at);
            else if (at < bytes.length) bytes[at] = value;
            // Most changes would only break a checksum: these also repair it.
            if (how === 'fix') repair(bytes, at - (at % 512));
          }
          try {
            let length = 0;
            for await (const entry of walkTar(inPieces(bytes, 4096))) {
              if (entry.kind !== 'regular') continue;
              for await (const piece of entry.content()) length += piece.length;
              if (length > 2 ** 40) break;
            }
          } catch (error) {
            refused++;
            expect(error).toMatchObject({ code: expect.stringMatching(/^(?:invalid-argument|data-loss)$/) });
          }
        },
      ),
      { numRuns: mutations },
    );
    expect(refused).toBeGreaterThan(mutations / 10);
  }, 600_000);
});

function repair(bytes: Buffer, block: number): void {
  if (block + 512 > bytes.length) return;
  bytes.write(' '.repeat(8), block + 148, 'latin1');
  let sum = 0;
  for (const byte of bytes.subarray(block, block + 512)) sum += byte;
  bytes.write(`${sum.toString(8).padStart(6, '0')}\0 `, block + 148, 'latin1');
}
