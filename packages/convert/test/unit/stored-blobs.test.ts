import { cpSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeBootstrap, type RafsImage } from '@pantala/rafs';
import { compareTrees, type EntryFacts, type Fact, readTree, readTreeFile, Scratch } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkBlobs } from '../../src/check/blob-check.ts';
import { isComplete } from '../../src/export/completeness.ts';
import { decodeBlobs } from '../../src/export/decoded-blobs.ts';
import { exportFlatDisk } from '../../src/export/flat-disk.ts';
import { DecodePool } from '../../src/stored/decode-pool.ts';
import { FileContent } from '../../src/stored/file-content.ts';
import { ImageBlobs } from '../../src/stored/image-blobs.ts';
import { FolderBlobs } from '../../src/stored/stored-blobs.ts';
import { unpackDirectory } from '../../src/unpack/directory.ts';
import { fixture, fixtureBootstrap } from '../support/fixtures.ts';

const root = process.getuid?.() === 0;
const FROM_DIRECTORY = ['m-zstd', 'm-lz4_block', 'm-none', 'm-sha256', 'm-batch-zstd', 'm-cs0x10000-lz4'] as const;
const FROM_TAR = ['t-tar-rafs', 't-targz-ref'] as const;
const ALL = [...FROM_DIRECTORY, ...FROM_TAR, 'vhead-y-zstd'] as const;

let pool: DecodePool;
beforeAll(() => {
  pool = new DecodePool(2);
});
afterAll(() => pool[Symbol.asyncDispose]());

interface Opened extends AsyncDisposable {
  readonly image: RafsImage;
  readonly blobs: ImageBlobs;
}

function openFixture(name: string, folder = fixture(name, 'blobs')): Opened {
  const image = decodeBootstrap(fixtureBootstrap(name));
  const stored = new FolderBlobs(folder);
  return { image, blobs: new ImageBlobs(image, stored), [Symbol.asyncDispose]: () => stored[Symbol.asyncDispose]() };
}

async function problemsOf(name: string, folder?: string): Promise<string[]> {
  await using opened = openFixture(name, folder);
  const problems: string[] = [];
  await checkBlobs(opened.blobs, { pool, problem: (message) => problems.push(message) });
  return problems;
}

/** A copy of a fixture's blobs, and the path of the largest. */
function copyBlobs(name: string, scratch: Scratch): { readonly folder: string; readonly largest: string } {
  const folder = scratch.join('blobs');
  cpSync(fixture(name, 'blobs'), folder, { recursive: true });
  const paths = readdirSync(folder).map((id) => join(folder, id));
  return { folder, largest: paths.sort((a, b) => statSync(b).size - statSync(a).size)[0] as string };
}

/** Whose time ext4 cannot keep. */
const FAR = 'times/y9999';

/** What the real builder loses: README of the fixtures. */
function lostByBuilder(path: string, facts: EntryFacts): readonly Fact[] {
  if (path === '.' || path === FAR) return ['mtime'];
  return facts.hl !== undefined && facts.sha === undefined ? ['nlink', 'hl'] : [];
}

describe('images of the real nydus-image', () => {
  test.skipIf(!root).each(FROM_DIRECTORY)(
    `%s unpacks to the tree it was made of${root ? '' : ' (needs root)'}`,
    async (name) => {
      await using scratch = Scratch.create('stored');
      await using opened = openFixture(name);
      const content = new FileContent(opened.blobs);
      const { lost } = await unpackDirectory(opened.image.root, scratch.join('out'), {
        content: (file) => content.read(file),
      });
      expect(lost.filter(({ what }) => what !== 'time')).toEqual([]);
      const expected = readTreeFile(fixture('src', 'mini.expect.json'));
      expect(compareTrees(expected, await readTree(scratch.join('out')), { except: lostByBuilder })).toEqual([]);
    },
  );

  test.each(ALL)('%s is found whole: blobs, chunk information, sections, every chunk', async (name) => {
    expect(await problemsOf(name)).toEqual([]);
  });

  test.each(ALL)('%s decodes to a device and to a flat disk', async (name) => {
    await using scratch = Scratch.create('stored');
    await using opened = openFixture(name);
    const bootstrap = fixtureBootstrap(name);
    const [decoded] = await decodeBlobs(opened.blobs, scratch.path, { pool });
    const { bytes } = await exportFlatDisk(opened.blobs, bootstrap, scratch.join('disk'), { pool });
    const disk = readFileSync(scratch.join('disk'));
    expect(disk.length).toBe(bytes);
    expect(Buffer.compare(disk.subarray(0, bootstrap.length), bootstrap)).toBe(0);
    const device = readFileSync(decoded?.path ?? '');
    expect(disk.subarray(bytes - device.length).equals(device)).toBe(true);
    expect(device.length).toBe(opened.image.blobs[0]?.uncompressedSize);
  });
});

describe('checking finds', () => {
  test('a damaged chunk, and that the blob is another one', async () => {
    await using scratch = Scratch.create('stored');
    const { folder, largest } = copyBlobs('m-zstd', scratch);
    const bytes = readFileSync(largest);
    bytes[5000] = (bytes[5000] as number) ^ 1;
    writeFileSync(largest, bytes);
    const problems = await problemsOf('m-zstd', folder);
    expect(problems).toHaveLength(2);
    expect(problems[0]).toMatch(/stored (at|bytes) \d+ to \d+/);
    expect(problems[1]).toMatch(/has the digest sha256:[0-9a-f]{64}/);
  });

  test('every damaged chunk, not only the first', async () => {
    await using scratch = Scratch.create('stored');
    const { folder, largest } = copyBlobs('m-none', scratch);
    const bytes = readFileSync(largest);
    const size = 2_148_945;
    for (const at of [10, size / 2, size - 10]) bytes[Math.floor(at)] = (bytes[Math.floor(at)] as number) ^ 0x80;
    writeFileSync(largest, bytes);
    expect((await problemsOf('m-none', folder)).filter((line) => line.includes('has not the content'))).toHaveLength(3);
  });

  test("a blob that is not there, one that is cut off, one in another one's place", async () => {
    await using scratch = Scratch.create('stored');
    expect(await problemsOf('m-zstd', scratch.path)).toEqual([expect.stringMatching(/^there is no blob 3d1aa0bd/)]);
    const { folder, largest } = copyBlobs('m-zstd', scratch);
    truncateSync(largest, 100_000);
    expect(await problemsOf('m-zstd', folder)).not.toEqual([]);
    const [other] = readdirSync(fixture('m-lz4_block', 'blobs'));
    cpSync(fixture('m-lz4_block', 'blobs', other as string), largest);
    expect((await problemsOf('m-zstd', folder)).join('\n')).toMatch(/bootstrap says|ci_|has the digest/);
  });

  test('chunk information that another compressor left behind', async () => {
    await using scratch = Scratch.create('stored');
    const { folder, largest } = copyBlobs('m-none', scratch);
    const bytes = readFileSync(largest);
    // The first entry's compressed offset and size: [data][chunk information][header].
    const header = bytes.length - 4096;
    const start = Number(bytes.readBigUInt64LE(header + 16));
    bytes.writeBigUInt64LE(bytes.readBigUInt64LE(start + 8) + 1n, start + 8);
    writeFileSync(largest, bytes);
    expect((await problemsOf('m-none', folder)).join('\n')).toMatch(
      /compressed_offset of chunk 0 is 1; the bootstrap says 0/,
    );
  });
});

describe('a decoded blob', () => {
  test('is used again when it is complete, and only then', async () => {
    await using scratch = Scratch.create('stored');
    await using opened = openFixture('m-zstd');
    const [first] = await decodeBlobs(opened.blobs, scratch.path, { pool });
    const [second] = await decodeBlobs(opened.blobs, scratch.path, { pool });
    expect([first?.reused, second?.reused]).toEqual([false, true]);
    expect(await isComplete(first?.path ?? '', first?.size ?? 0)).toBe(true);
  });

  test('a file of its length that is filled in part is never taken for it', async () => {
    await using scratch = Scratch.create('stored');
    await using opened = openFixture('m-zstd');
    const [info] = opened.image.blobs;
    const path = scratch.join(`${info?.id}.blob.data`);
    writeFileSync(path, '');
    truncateSync(path, info?.uncompressedSize);
    expect(await isComplete(path, info?.uncompressedSize ?? 0)).toBe(false);
    const [decoded] = await decodeBlobs(opened.blobs, scratch.path, { pool });
    expect(decoded?.reused).toBe(false);
    expect(
      readFileSync(path)
        .subarray(0, 4096)
        .every((byte) => byte === 0),
    ).toBe(false);
  });

  test('does not exist when it was interrupted or damaged', async () => {
    await using scratch = Scratch.create('stored');
    await using opened = openFixture('m-zstd');
    const signal = AbortSignal.abort();
    await expect(decodeBlobs(opened.blobs, scratch.join('out'), { pool, signal })).rejects.toMatchObject({
      code: 'cancelled',
    });
    expect(readdirSync(scratch.join('out'))).toEqual([]);
    const { folder, largest } = copyBlobs('m-zstd', scratch);
    const bytes = readFileSync(largest);
    bytes[5000] = (bytes[5000] as number) ^ 1;
    writeFileSync(largest, bytes);
    await using damaged = openFixture('m-zstd', folder);
    await expect(decodeBlobs(damaged.blobs, scratch.join('out'), { pool })).rejects.toMatchObject({
      code: 'data-loss',
    });
    expect(readdirSync(scratch.join('out'))).toEqual([]);
  });
});
