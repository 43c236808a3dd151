import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { type ByteRange, Deferred, PantalaError } from '@pantala/base';
import { BlobCache, type BlobHandle, type FillEvent } from '@pantala/lazyfs';
import { Scratch } from '@pantala/testkit';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type BlobFixture, blobFixture, lying, MemoryFetcher, truthful } from '../blob-fixture.ts';

const forever = new AbortController().signal;
const demand = { urgency: 'demand', signal: forever } as const;
const prefetch = { urgency: 'prefetch', signal: forever } as const;

const lengths = [9000, 4096, 100, 70_000, 5000, 4097, 33_000, 12, 8192, 1, 60_000, 4000];

/** Every chunk that is held is right; one that is not is still a hole, or just being written. */
function expectRight(fixture: BlobFixture, blob: BlobHandle): void {
  const file = readFileSync(blob.path);
  expect(file.length).toBe(fixture.layout.size);
  for (let chunk = 0; chunk < fixture.layout.chunkCount; chunk++) {
    const { start, end } = fixture.layout.rangeOf(chunk);
    const isHeld = blob.nextMissing(start) !== start;
    const content = file.subarray(start, end);
    const right = fixture.decoded.subarray(start, end);
    const isFilling = !isHeld && content.every((byte, at) => byte === 0 || byte === right[at]);
    expect(isFilling || content.equals(right)).toBe(true);
  }
}

test('whatever order ranges are asked for in, the file has the decoded bytes and each stored byte was fetched once', async () => {
  await using scratch = Scratch.create('fill');
  let run = 0;
  const step = fc.record({
    start: fc.double({ min: 0, max: 1, noNaN: true }),
    length: fc.double({ min: 0, max: 0.3, noNaN: true }),
    urgency: fc.constantFrom('demand' as const, 'prefetch' as const),
    wait: fc.boolean(),
    leaves: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 12 }),
      fc.constantFrom([1], [1, 3], [4, 1, 1]),
      fc.constantFrom(0, 20_000, 1024 * 1024),
      async (steps, groups, pieceLength) => {
        const fixture = blobFixture({ lengths, groups, seed: 1 });
        await using cache = await BlobCache.open({ directory: scratch.join(String(run++)) });
        const fetcher = new MemoryFetcher({
          only: async (range) => {
            for (let turn = 0; turn < range.start % 5; turn++) await new Promise(setImmediate);
            return fixture.stored.subarray(range.start, range.end);
          },
        });
        await using blob = await cache.blob(fixture.layout, { fetcher, pieceLength });
        const asked: Promise<void>[] = [];
        for (const { start, length, urgency, wait, leaves } of steps) {
          const from = Math.floor(start * fixture.layout.size);
          const range = {
            start: from,
            end: Math.min(fixture.layout.size, from + Math.floor(length * fixture.layout.size)),
          };
          const gone = new AbortController();
          const reading = blob.ensure(range, { urgency, signal: gone.signal }).then(
            () => {
              const file = readFileSync(blob.path).subarray(range.start, range.end);
              expect(file.equals(fixture.decoded.subarray(range.start, range.end))).toBe(true);
            },
            (error: unknown) => {
              expect(leaves).toBe(true);
              expect(PantalaError.from(error).code).toBe('cancelled');
            },
          );
          asked.push(reading);
          if (leaves) gone.abort();
          if (wait) await reading;
        }
        await Promise.all(asked);
        expectRight(fixture, blob);
        const counts = new Uint8Array(fixture.stored.length);
        for (const { range } of fetcher.served) for (let at = range.start; at < range.end; at++) counts[at]!++;
        // With pieces of several groups, what lies between two of them may come twice; a group never does.
        if (pieceLength === 0) expect(counts.every((count) => count <= 1)).toBe(true);
        await blob.ensure({ start: 0, end: fixture.layout.size }, demand);
        expect(blob.complete).toBe(true);
        await blob.completed;
        expect(readFileSync(blob.path).equals(fixture.decoded)).toBe(true);
      },
    ),
    { numRuns: process.env.PANTALA_FULL === '1' ? 1000 : 60 },
  );
});

test('readers that want the same chunk share one fetch, and neighbours come along up to the limit', async () => {
  await using scratch = Scratch.create('fill');
  const fixture = blobFixture({ lengths: Array.from({ length: 32 }, () => 8192), seed: 2 });
  await using cache = await BlobCache.open({ directory: scratch.path });
  const fetcher = new MemoryFetcher({ only: truthful(fixture.stored) });
  const pieceLength = fixture.layout.group(3).stored.end - fixture.layout.group(0).stored.start;
  await using blob = await cache.blob(fixture.layout, { fetcher, pieceLength });
  await Promise.all(Array.from({ length: 64 }, () => blob.ensure({ start: 100, end: 200 }, demand)));
  expect(fetcher.served.map(({ range }) => range)).toEqual([{ start: 0, end: pieceLength }]);
  await blob.ensure({ start: 0, end: 4 * 8192 }, demand);
  expect(blob.nextMissing(0)).toBe(4 * 8192);
  expect(fetcher.served).toHaveLength(1);
  // What is there already is not fetched along again.
  await blob.ensure({ start: 6 * 8192, end: 32 * 8192 }, demand);
  await blob.ensure({ start: 4 * 8192, end: 4 * 8192 + 1 }, demand);
  expect(fetcher.served.at(-1)?.range).toEqual({
    start: fixture.layout.group(4).stored.start,
    end: fixture.layout.group(5).stored.end,
  });
});

test('wrong bytes are never seen: another source is asked, and the liar is told on', async () => {
  await using scratch = Scratch.create('fill');
  const fixture = blobFixture({ lengths, groups: [1, 2], seed: 3 });
  await using cache = await BlobCache.open({ directory: scratch.path });
  const fetcher = new MemoryFetcher({ liar: lying(fixture.stored), honest: truthful(fixture.stored) });
  const fills: FillEvent[] = [];
  using _ = cache.fills.subscribe((event) => fills.push(event));
  await using blob = await cache.blob(fixture.layout, { fetcher });
  await blob.ensure({ start: 0, end: fixture.layout.size }, demand);
  expect(readFileSync(blob.path).equals(fixture.decoded)).toBe(true);
  expect(fetcher.blamed).toEqual(['liar']);
  expect(fills.some(({ source }) => source === 'honest')).toBe(true);
});

test('where every source lies the reader gets data-loss, and the file stays a hole', async () => {
  await using scratch = Scratch.create('fill');
  const fixture = blobFixture({ lengths, seed: 4 });
  await using cache = await BlobCache.open({ directory: scratch.path });
  const fetcher = new MemoryFetcher({ first: lying(fixture.stored), second: lying(fixture.stored) });
  await using blob = await cache.blob(fixture.layout, { fetcher, pieceLength: 0 });
  await expect(blob.ensure({ start: 0, end: 10 }, demand)).rejects.toMatchObject({ code: 'data-loss' });
  expectRight(fixture, blob);
  expect(blob.nextMissing(0)).toBe(0);
});

test('a source that was wrong once is asked again when there is no other', async () => {
  await using scratch = Scratch.create('fill');
  const fixture = blobFixture({ lengths, seed: 5 });
  await using cache = await BlobCache.open({ directory: scratch.path });
  let calls = 0;
  const wrong = lying(fixture.stored);
  const right = truthful(fixture.stored);
  const fetcher = new MemoryFetcher({ only: (range: ByteRange) => (calls++ === 0 ? wrong(range) : right(range)) });
  await using blob = await cache.blob(fixture.layout, { fetcher, pieceLength: 0 });
  await blob.ensure({ start: 0, end: 10 }, demand);
  expectRight(fixture, blob);
  expect(fetcher.blamed).toEqual([]);
});

test('a reader does not wait for a prefetch that is stuck', async () => {
  await using scratch = Scratch.create('fill');
  const fixture = blobFixture({ lengths, seed: 6 });
  await using cache = await BlobCache.open({ directory: scratch.path });
  const asked = new Deferred();
  const fetcher = new MemoryFetcher({
    only: (range, { urgency, signal }) => {
      if (urgency === 'demand') return truthful(fixture.stored)(range);
      asked.resolve();
      return new Promise((_, reject) =>
        signal.addEventListener('abort', () => reject(PantalaError.from(signal.reason))),
      );
    },
  });
  await using blob = await cache.blob(fixture.layout, { fetcher });
  const gone = new AbortController();
  const prefetching = blob.ensure({ start: 0, end: fixture.layout.size }, { urgency: 'prefetch', signal: gone.signal });
  await asked.promise;
  await Promise.all([
    blob.ensure({ start: 0, end: 10 }, demand),
    blob.ensure({ start: 0, end: 20 }, demand),
    blob.ensure({ start: 0, end: fixture.layout.size }, demand),
  ]);
  expect(readFileSync(blob.path).equals(fixture.decoded)).toBe(true);
  gone.abort();
  await prefetching.catch(() => {});
});

test('the beginning of an answer is used before its end is there', async () => {
  await using scratch = Scratch.create('fill');
  const fixture = blobFixture({ lengths: [5000, 5000, 5000], seed: 7 });
  await using cache = await BlobCache.open({ directory: scratch.path });
  const end = new Deferred();
  const fetcher = new MemoryFetcher({
    only: async (range, { progress }) => {
      const bytes = fixture.stored.subarray(range.start, range.end);
      progress(bytes.subarray(0, fixture.layout.group(0).stored.end), 'only');
      await end.promise;
      return bytes;
    },
  });
  await using blob = await cache.blob(fixture.layout, { fetcher });
  await blob.ensure({ start: 0, end: 5000 }, demand);
  expect(blob.nextMissing(0)).toBe(8192);
  end.resolve();
  await blob.ensure({ start: 8192, end: 8193 }, demand);
  expectRight(fixture, blob);
});

test("a source that never answers costs the reader its deadline, and the failure of one reader is not the next one's", async () => {
  await using scratch = Scratch.create('fill');
  const fixture = blobFixture({ lengths, seed: 8 });
  await using cache = await BlobCache.open({ directory: scratch.path, demandDeadline: 200 });
  let answers = false;
  const fetcher = new MemoryFetcher({
    only: (range, { signal }) =>
      answers
        ? truthful(fixture.stored)(range)
        : new Promise((_, reject) => signal.addEventListener('abort', () => reject(PantalaError.from(signal.reason)))),
  });
  await using blob = await cache.blob(fixture.layout, { fetcher });
  await expect(blob.ensure({ start: 0, end: 10 }, demand)).rejects.toMatchObject({ code: 'deadline-exceeded' });
  answers = true;
  await blob.ensure({ start: 0, end: 10 }, demand);
  expectRight(fixture, blob);
});

test.each([
  ['is in use', false],
  ['was used before', true],
])('chunks of another blob that %s are copied and not fetched', async (_what, isClosed) => {
  await using scratch = Scratch.create('fill');
  const old = blobFixture({ lengths, seed: 9 });
  const content = (chunk: number, length: number) => {
    const { start } = old.layout.rangeOf(chunk);
    return chunk === 3 ? Buffer.alloc(length, 'new') : Buffer.from(old.decoded.subarray(start, start + length));
  };
  const newer = blobFixture({ lengths, seed: 10, content });
  await using cache = await BlobCache.open({ directory: scratch.path });
  await using first = await cache.blob(old.layout, { fetcher: new MemoryFetcher({ only: truthful(old.stored) }) });
  await first.ensure({ start: 0, end: old.layout.rangeOf(8).end }, demand);
  await first.ensure({ start: old.layout.rangeOf(10).start, end: old.layout.size }, demand);
  if (isClosed) {
    await first[Symbol.asyncDispose]();
    await cache.allowEviction();
  }
  const fetcher = new MemoryFetcher({ only: truthful(newer.stored) });
  const fills: FillEvent[] = [];
  using _ = cache.fills.subscribe((event) => fills.push(event));
  await using second = await cache.blob(newer.layout, { fetcher, pieceLength: 0 });
  await second.ensure({ start: 0, end: newer.layout.size }, demand);
  expect(readFileSync(second.path).equals(newer.decoded)).toBe(true);
  expect(fetcher.served.map(({ range }) => range)).toEqual([3].map((group) => newer.layout.group(group).stored));
  expect(fills.filter(({ source }) => source === `blob ${old.layout.blobId}`)).toHaveLength(lengths.length - 1);
});

test('nothing is taken from a cached blob whose content was changed, nor looked for before earlier mounts are open', async () => {
  await using scratch = Scratch.create('fill');
  const old = blobFixture({ lengths, seed: 9 });
  const content = (chunk: number, length: number) => {
    const { start } = old.layout.rangeOf(chunk);
    return Buffer.from(old.decoded.subarray(start, start + length));
  };
  const same = blobFixture({ lengths, groups: [2], seed: 10, content });
  await using cache = await BlobCache.open({ directory: scratch.path });
  const first = await cache.blob(old.layout, { fetcher: new MemoryFetcher({ only: truthful(old.stored) }) });
  await first.ensure({ start: 0, end: old.layout.size }, demand);
  await first[Symbol.asyncDispose]();
  const fetcher = new MemoryFetcher({ only: truthful(same.stored) });
  await using second = await cache.blob(same.layout, { fetcher, pieceLength: 0 });
  await second.ensure({ start: 0, end: 1 }, demand);
  expect(fetcher.served).toHaveLength(1);
  const changed = openSync(first.path, 'r+');
  writeSync(changed, 'changed', old.layout.rangeOf(6).start + 9);
  closeSync(changed);
  await cache.allowEviction();
  await second.ensure({ start: 0, end: same.layout.size }, demand);
  expect(readFileSync(second.path).equals(same.decoded)).toBe(true);
  expect(fetcher.served.map(({ range }) => range)).toEqual([0, 3].map((group) => same.layout.group(group).stored));
});

test('mounts share a blob: one fills what the other reads, and the last one closes it', async () => {
  await using scratch = Scratch.create('fill');
  const fixture = blobFixture({ lengths, seed: 11 });
  await using cache = await BlobCache.open({ directory: scratch.path });
  const one = await cache.blob(fixture.layout, { fetcher: new MemoryFetcher({ only: truthful(fixture.stored) }) });
  const none = new MemoryFetcher({});
  await using two = await cache.blob(fixture.layout, { fetcher: none });
  await one.ensure({ start: 0, end: fixture.layout.size }, demand);
  await two.ensure({ start: 0, end: fixture.layout.size }, demand);
  await one[Symbol.asyncDispose]();
  await expect(one.ensure({ start: 0, end: 1 }, demand)).rejects.toMatchObject({ code: 'failed-precondition' });
  await two.ensure({ start: 0, end: 1 }, prefetch);
  expect(none.served).toEqual([]);
});
