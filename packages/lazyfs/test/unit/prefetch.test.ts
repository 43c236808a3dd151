import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Deferred, lengthOf, monotonicNow, PantalaError, silentLogger, TokenBucket } from '@pantala/base';
import { BlobCache, planPrefetch, prefetch } from '@pantala/lazyfs';
import { decodeBootstrap, nodeAt } from '@pantala/rafs';
import { Scratch, until } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { blobFixture, MemoryFetcher, truthful } from '../blob-fixture.ts';

const FIXTURES = join(import.meta.dirname, '../../../rafs/test/fixtures/nydus-tools');
const { signal } = new AbortController();
const nothing = { ofImage: [], ofMount: [], everything: false, missing: [] };

test('a plan has the files that the image names, then those of the mount, each once; directories whole', () => {
  const image = decodeBootstrap(readFileSync(join(FIXTURES, 'm-prefetch-fs/bootstrap')));
  expect(image.prefetch.length).toBeGreaterThan(0);
  const plan = planPrefetch(image, ['/aaa_five_5', 'dirs', '/not/there']);
  expect(plan.missing).toEqual(['/not/there']);
  expect(plan.everything).toBe(false);
  expect(plan.ofImage.length).toBeGreaterThan(0);
  const node = nodeAt(image.root, 'aaa_five_5');
  const chunks = node?.kind === 'regular' ? node.content : [];
  const covers = (at: number) => [...plan.ofImage, ...plan.ofMount].some(({ start, end }) => start <= at && at < end);
  for (const { uncompressedOffset } of chunks) expect(covers(uncompressedOffset)).toBe(true);
  expect(planPrefetch(image, ['/']).everything).toBe(true);
});

test('lists come first and in order, then everything: the image is complete and stands on its own', async () => {
  await using scratch = Scratch.create('prefetch');
  const fixture = blobFixture({ lengths: Array.from({ length: 40 }, () => 8192), seed: 1 });
  await using cache = await BlobCache.open({ directory: scratch.path });
  const fetcher = new MemoryFetcher({ only: truthful(fixture.stored) });
  await using blob = await cache.blob(fixture.layout, { fetcher, pieceLength: 0 });
  const at = (chunk: number) => ({ blob: 0, start: chunk * 8192, end: chunk * 8192 + 100 });
  const plan = { ...nothing, ofImage: [at(30), at(7)], ofMount: [at(12)] };
  const { broken } = await prefetch(plan, [blob], { lanes: 1, logger: silentLogger, signal });
  const order = fetcher.served.map(({ range }) => range.start);
  expect(order.slice(0, 3)).toEqual([30, 7, 12].map((group) => fixture.layout.group(group).stored.start));
  expect(order).toHaveLength(40);
  expect(fetcher.served.every(({ urgency }) => urgency === 'prefetch')).toBe(true);
  expect(broken).toBe(0);
  expect(blob.complete).toBe(true);
  expect(blob.filled).toEqual({ bytes: 40 * 8192, of: 40 * 8192 });
  expect(readFileSync(blob.path).equals(fixture.decoded)).toBe(true);
});

test('without the whole image only the lists are fetched', async () => {
  await using scratch = Scratch.create('prefetch');
  const fixture = blobFixture({ lengths: Array.from({ length: 10 }, () => 8192), seed: 2 });
  await using cache = await BlobCache.open({ directory: scratch.path });
  const fetcher = new MemoryFetcher({ only: truthful(fixture.stored) });
  await using blob = await cache.blob(fixture.layout, { fetcher, pieceLength: 0 });
  const plan = { ...nothing, ofMount: [{ blob: 0, start: 0, end: 1 }] };
  await prefetch(plan, [blob], { all: false, logger: silentLogger, signal });
  expect(fetcher.served).toHaveLength(1);
});

test('nothing is prefetched while a reader waits, but for one step a second', async () => {
  await using scratch = Scratch.create('prefetch');
  const fixture = blobFixture({ lengths: Array.from({ length: 20 }, () => 8192), seed: 3 });
  await using cache = await BlobCache.open({ directory: scratch.path });
  const asked = new Deferred();
  const answer = new Deferred();
  const fetcher = new MemoryFetcher({
    only: async (range, { urgency }) => {
      if (urgency === 'demand') {
        asked.resolve();
        await answer.promise;
      }
      return fixture.stored.subarray(range.start, range.end);
    },
  });
  await using blob = await cache.blob(fixture.layout, { fetcher, pieceLength: 0 });
  const reading = blob.ensure({ start: 19 * 8192, end: 20 * 8192 }, { urgency: 'demand', signal });
  await asked.promise;
  const began = monotonicNow();
  const prefetching = prefetch(nothing, [blob], { lanes: 1, logger: silentLogger, signal });
  const steps = () => fetcher.served.filter(({ urgency }) => urgency === 'prefetch').length;
  await until(() => steps() > 0, { what: 'a step of the prefetch' });
  expect(monotonicNow() - began).toBeGreaterThan(950);
  answer.resolve();
  await Promise.all([reading, prefetching]);
  expect(blob.complete).toBe(true);
});

test('the bandwidth limit holds for prefetches and not for readers', async () => {
  await using scratch = Scratch.create('prefetch');
  const fixture = blobFixture({ lengths: Array.from({ length: 20 }, () => 8192), seed: 4 });
  await using cache = await BlobCache.open({ directory: scratch.path });
  const fetcher = new MemoryFetcher({ only: truthful(fixture.stored) });
  const rate = fixture.stored.length;
  const prefetchLimiter = new TokenBucket({ rate, burst: rate / 20 });
  await using blob = await cache.blob(fixture.layout, { fetcher, pieceLength: 0, prefetchLimiter });
  const began = monotonicNow();
  const prefetching = prefetch(nothing, [blob], { logger: silentLogger, signal });
  const seconds = () => (monotonicNow() - began) / 1000;
  await blob.ensure({ start: 19 * 8192, end: 20 * 8192 }, { urgency: 'demand', signal });
  expect(blob.complete).toBe(false);
  await prefetching;
  const prefetched = fetcher.served.filter(({ urgency }) => urgency === 'prefetch');
  const bytes = prefetched.reduce((sum, { range }) => sum + lengthOf(range), 0);
  expect(bytes).toBeGreaterThan(rate * 0.8);
  // All but the first bucket had to be waited for.
  expect(seconds()).toBeGreaterThan((bytes - rate / 20) / rate - 0.05);
});

test('what nobody has is counted and passed by; a source that is gone is waited for; the end comes at once', async () => {
  await using scratch = Scratch.create('prefetch');
  const fixture = blobFixture({ lengths: Array.from({ length: 4 }, () => 8192), seed: 5 });
  await using cache = await BlobCache.open({ directory: scratch.path });
  let down = true;
  const fetcher = new MemoryFetcher({
    only: async (range) => {
      if (range.start === fixture.layout.group(2).stored.start) throw new PantalaError('not-found', 'never was');
      if (down) {
        down = false;
        throw new PantalaError('unavailable', 'gone for a moment');
      }
      return fixture.stored.subarray(range.start, range.end);
    },
  });
  await using blob = await cache.blob(fixture.layout, { fetcher, pieceLength: 0 });
  const ranges = [0, 1, 2, 3].map((chunk) => ({ blob: 0, start: chunk * 8192, end: chunk * 8192 + 1 }));
  const plan = { ...nothing, ofMount: ranges };
  expect(await prefetch(plan, [blob], { all: false, lanes: 1, logger: silentLogger, signal })).toEqual({ broken: 1 });
  expect(blob.nextMissing(0)).toBe(2 * 8192);
  const end = new AbortController();
  const slow = new MemoryFetcher({
    only: async (_range, options) => {
      end.abort(new PantalaError('cancelled', 'unmounted'));
      throw PantalaError.from(options.signal.reason ?? new Error('still on'));
    },
  });
  await using same = await cache.blob(fixture.layout, { fetcher: slow });
  const broken = prefetch(nothing, [same], { logger: silentLogger, signal: end.signal });
  await expect(broken).rejects.toMatchObject({ code: 'cancelled' });
});
