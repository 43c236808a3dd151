import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { BlobCache } from '@pantala/lazyfs';
import { Scratch } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { type BlobFixture, blobFixture, MemoryFetcher, truthful } from '../blob-fixture.ts';

const demand = { urgency: 'demand', signal: new AbortController().signal } as const;
const lengths = Array.from({ length: 16 }, () => 60_000);
const isRoot = process.getuid?.() === 0;

function fixtureOf(seed: number): BlobFixture {
  return blobFixture({ lengths, seed });
}

async function fill(cache: BlobCache, fixture: BlobFixture) {
  const blob = await cache.blob(fixture.layout, { fetcher: new MemoryFetcher({ only: truthful(fixture.stored) }) });
  await blob.ensure({ start: 0, end: fixture.layout.size }, demand);
  return blob;
}

function idsIn(directory: string): string[] {
  return [...new Set(readdirSync(directory).map((name) => name.slice(0, 64)))].sort();
}

/** Bytes on disk as du counts them, without the directory itself. */
function diskUse(directory: string): number {
  const total = execFileSync('du', ['-s', '-B512', directory], { encoding: 'utf8' });
  const own = execFileSync('stat', ['-c', '%b', directory], { encoding: 'utf8' });
  return (Number.parseInt(total, 10) - Number.parseInt(own, 10)) * 512;
}

test('usage is exact to the block, also of blobs that are partly there', async () => {
  await using scratch = Scratch.create('usage');
  await using cache = await BlobCache.open({ directory: scratch.path });
  expect(cache.usage()).toEqual({ blobs: 0, bytes: 0 });
  await using _ = await fill(cache, fixtureOf(1));
  const partly = fixtureOf(2);
  const fetcher = new MemoryFetcher({ only: truthful(partly.stored) });
  await using blob = await cache.blob(partly.layout, { fetcher, pieceLength: 0 });
  await blob.ensure({ start: 0, end: 1 }, demand);
  expect(cache.usage()).toEqual({ blobs: 2, bytes: diskUse(scratch.path) });
  expect(cache.usage().bytes).toBeLessThan(partly.layout.size * 1.5);
});

test('above the high mark what was unused longest goes until the low mark, and nothing that is in use', async () => {
  await using scratch = Scratch.create('marks');
  const blobs = [1, 2, 3, 4, 5].map((seed) => fixtureOf(seed));
  const size = blobs[0]?.layout.size ?? 0;
  await using cache = await BlobCache.open({ directory: scratch.path, highBytes: size * 4.5, lowBytes: size * 3.5 });
  await cache.allowEviction();
  const handles = [];
  for (const fixture of blobs) handles.push(await fill(cache, fixture));
  const [first, second, third] = handles;
  await second?.[Symbol.asyncDispose]();
  await first?.[Symbol.asyncDispose]();
  // The second is gone already (five were too many), the first stays: four are less than the mark.
  const without = (gone: readonly number[]) =>
    blobs.flatMap(({ layout }, at) => (gone.includes(at) ? [] : [layout.blobId])).sort();
  expect(idsIn(scratch.path)).toEqual(without([1]));
  const sixth = await fill(cache, fixtureOf(6));
  await third?.[Symbol.asyncDispose]();
  expect(idsIn(scratch.path)).not.toContain(blobs[0]?.layout.blobId);
  expect(cache.usage().bytes).toBeLessThanOrEqual(size * 4.5);
  await sixth[Symbol.asyncDispose]();
  // What was evicted is fetched again.
  await using back = await fill(cache, blobs[1] as BlobFixture);
  expect(readFileSync(back.path).equals((blobs[1] as BlobFixture).decoded)).toBe(true);
});

test('nothing is evicted before the blobs of earlier mounts could be opened', async () => {
  await using scratch = Scratch.create('restart');
  const fixture = fixtureOf(1);
  await using cache = await BlobCache.open({ directory: scratch.path, highBytes: 1000 });
  await (await fill(cache, fixture))[Symbol.asyncDispose]();
  expect(idsIn(scratch.path)).toEqual([fixture.layout.blobId]);
  await cache.allowEviction();
  expect(idsIn(scratch.path)).toEqual([]);
});

test.runIf(isRoot)('a full disk is one clear error, after what nobody uses was evicted', async () => {
  await using scratch = Scratch.create('full');
  const mount = scratch.join('mount');
  mkdirSync(mount);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', mount]);
  try {
    await using cache = await BlobCache.open({ directory: `${mount}/cache` });
    await cache.allowEviction();
    const [old, current, next] = [fixtureOf(1), fixtureOf(2), fixtureOf(3)];
    await (await fill(cache, old))[Symbol.asyncDispose]();
    writeFileSync(`${mount}/ballast`, Buffer.alloc(2.3 * 1024 * 1024));
    await using blob = await fill(cache, current);
    expect(readFileSync(blob.path).equals(current.decoded)).toBe(true);
    expect(idsIn(`${mount}/cache`)).toEqual([current.layout.blobId]);

    // Now everything is in use.
    const fetcher = new MemoryFetcher({ only: truthful(next.stored) });
    await using full = await cache.blob(next.layout, { fetcher, pieceLength: 0 });
    const everything = { start: 0, end: next.layout.size };
    await expect(full.ensure(everything, demand)).rejects.toMatchObject({
      code: 'disk-full',
      message: expect.stringContaining(`no room for`) as string,
    });
    rmSync(`${mount}/ballast`);
    await full.ensure(everything, demand);
    expect(readFileSync(full.path).equals(next.decoded)).toBe(true);
  } finally {
    execFileSync('umount', [mount]);
  }
});

test('the table of chunks that others copy by is there when a blob is given back, however soon that is', async () => {
  await using scratch = Scratch.create('tables');
  const fixture = fixtureOf(9);
  const table = scratch.join(`${fixture.layout.blobId}.blob.chunks`);
  {
    await using cache = await BlobCache.open({ directory: scratch.path });
    await using _ = await fill(cache, fixture);
  }
  expect(existsSync(table)).toBe(true);
  rmSync(table);
  await using cache = await BlobCache.open({ directory: scratch.path });
  await using _ = await fill(cache, fixture);
  await expect.poll(() => existsSync(table), { timeout: 10_000 }).toBe(true);
});
