import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { ByteRange } from '@pantala/base';
import { BlobCache } from '@pantala/lazyfs';
import { Scratch } from '@pantala/testkit';
import { describe, expect, test } from 'vitest';
import { encodeHeader, HEADER_LENGTH } from '../../src/cache/journal-format.ts';
import { type BlobFixture, blobFixture, MemoryFetcher, truthful } from '../blob-fixture.ts';
import { FILLED } from '../kill-filler.ts';

const KILLS = process.env.PANTALA_FULL === '1' ? 200 : 15;
const demand = { urgency: 'demand', signal: new AbortController().signal } as const;
const lengths = [9000, 4096, 100, 70_000, 5000, 4097, 33_000, 12, 8192, 1, 60_000, 4000];

function fetcherOf({ stored }: BlobFixture): MemoryFetcher {
  return new MemoryFetcher({ only: truthful(stored) });
}

/** Opens the blob, asks for ranges, and closes it. Returns what was fetched and whether it was complete at first. */
async function session(directory: string, fixture: BlobFixture, ranges: readonly ByteRange[]) {
  await using cache = await BlobCache.open({ directory });
  const fetcher = fetcherOf(fixture);
  await using blob = await cache.blob(fixture.layout, { fetcher, pieceLength: 0 });
  const wasComplete = blob.complete;
  for (const range of ranges) await blob.ensure(range, demand);
  const file = readFileSync(blob.path);
  for (const { start, end } of ranges) {
    expect(file.subarray(start, end).equals(fixture.decoded.subarray(start, end))).toBe(true);
  }
  return { fetched: fetcher.served.map(({ range }) => range), wasComplete, path: blob.path };
}

function journalOf(directory: string): string {
  return join(directory, readdirSync(directory).find((name) => name.endsWith('.blob.fill')) ?? '');
}

/** Makes the journal look as if the machine had been started anew since. */
function pretendReboot(directory: string, { layout }: BlobFixture): void {
  const path = journalOf(directory);
  const { mtimeMs } = statSync(path);
  const fd = openSync(path, 'r+');
  const identity = { blobId: layout.blobId, chunkCount: layout.chunkCount, size: layout.size };
  writeSync(fd, encodeHeader(identity, Buffer.alloc(16, 7)), 0, HEADER_LENGTH, 0);
  closeSync(fd);
  utimesSync(path, mtimeMs / 1000 + 1, mtimeMs / 1000 + 1);
}

function overwrite(path: string, offset: number, bytes: string): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, bytes, offset);
  closeSync(fd);
  // The kernel's clock for files goes in steps of some milliseconds.
  const later = Date.now() / 1000 + 1;
  utimesSync(path, later, later);
}

test(
  `whatever a reader was let to is there after SIGKILL and right, and is not fetched again (${KILLS} kills)`,
  async () => {
    await using scratch = Scratch.create('kill');
    const said: ByteRange[] = [];
    let killedIncomplete = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      const script = join(import.meta.dirname, '..', 'kill-filler.ts');
      const directory = scratch.join(String(Math.floor(kill / 3)));
      if (kill % 3 === 0) said.length = 0;
      const child = spawn(process.execPath, [script, directory, String(kill * 7919 + 1)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const exited = once(child, 'exit');
      let remaining = 1 + ((kill * 61) % 90);
      for await (const line of createInterface({ input: child.stdout })) {
        const [, start, end] = line.split(' ');
        said.push({ start: Number(start), end: Number(end) });
        if (remaining-- === 0) child.kill('SIGKILL');
      }
      expect((await exited)[1]).toBe('SIGKILL');
      const { fetched, wasComplete } = await session(directory, FILLED, said);
      if (!wasComplete) killedIncomplete++;
      expect(fetched).toEqual([]);
    }
    expect(killedIncomplete).toBeGreaterThan(KILLS / 3);
  },
  15_000 + KILLS * 2_000,
);

test('an orderly close costs nothing: everything is there again', async () => {
  await using scratch = Scratch.create('close');
  const fixture = blobFixture({ lengths, groups: [1, 3], seed: 1 });
  const all = { start: 0, end: fixture.layout.size };
  await session(scratch.path, fixture, [all]);
  const again = await session(scratch.path, fixture, [all]);
  expect(again).toMatchObject({ wasComplete: true, fetched: [] });
});

describe('after a start of the machine', () => {
  test('what was synced is trusted', async () => {
    await using scratch = Scratch.create('reboot');
    const fixture = blobFixture({ lengths, seed: 2 });
    const all = { start: 0, end: fixture.layout.size };
    await session(scratch.path, fixture, [all]);
    pretendReboot(scratch.path, fixture);
    expect(await session(scratch.path, fixture, [all])).toMatchObject({ wasComplete: true, fetched: [] });
  });

  test('what was only recorded is checked: right bytes are kept, lost ones fetched', async () => {
    await using scratch = Scratch.create('reboot');
    const fixture = blobFixture({ lengths, seed: 3 });
    const all = { start: 0, end: fixture.layout.size };
    const { path } = await session(scratch.path, fixture, [all]);
    // Without the marks of a sync, as a power loss may leave it.
    const journal = readFileSync(journalOf(scratch.path));
    const durable = journal.lastIndexOf(Buffer.from([9, 0, 0, 0]));
    truncateSync(journalOf(scratch.path), durable);
    overwrite(path, fixture.layout.rangeOf(3).start, '\0'.repeat(5000));
    pretendReboot(scratch.path, fixture);
    const again = await session(scratch.path, fixture, [all]);
    expect(again).toMatchObject({ wasComplete: false, fetched: [fixture.layout.group(3).stored] });
    expect(await session(scratch.path, fixture, [all])).toMatchObject({ wasComplete: true, fetched: [] });
  });
});

test('what is recorded of a blob that mounts still read is not doubted for a write that was not recorded', async () => {
  await using scratch = Scratch.create('in-use');
  const fixture = blobFixture({ lengths, seed: 5 });
  const all = { start: 0, end: fixture.layout.size };
  const { path } = await session(scratch.path, fixture, [all]);
  const later = Date.now() / 1000 + 1;
  utimesSync(path, later, later);
  const opened = async (inUse: ReadonlySet<string>) => {
    await using cache = await BlobCache.open({ directory: scratch.path, inUse });
    await using blob = await cache.blob(fixture.layout, { fetcher: fetcherOf(fixture), pieceLength: 0 });
    return blob.complete;
  };
  expect(await opened(new Set([fixture.layout.blobId]))).toBe(true);
  expect(await opened(new Set())).toBe(false);
});

test('a cache file that somebody changed is checked, and what is wrong is fetched again', async () => {
  await using scratch = Scratch.create('changed');
  const fixture = blobFixture({ lengths, seed: 4 });
  const all = { start: 0, end: fixture.layout.size };
  const { path } = await session(scratch.path, fixture, [all]);
  overwrite(path, fixture.layout.rangeOf(6).start + 17, 'changed');
  const again = await session(scratch.path, fixture, [all]);
  expect(again).toMatchObject({ wasComplete: false, fetched: [fixture.layout.group(6).stored] });
  expect(await session(scratch.path, fixture, [all])).toMatchObject({ wasComplete: true, fetched: [] });
});

test('the rest of a block behind a chunk is zeros, or the chunk is fetched again', async () => {
  await using scratch = Scratch.create('rest');
  const fixture = blobFixture({ lengths, seed: 5 });
  const all = { start: 0, end: fixture.layout.size };
  const { path } = await session(scratch.path, fixture, [all]);
  overwrite(path, fixture.layout.rangeOf(2).end + 5, 'behind the end of a file');
  await session(scratch.path, fixture, [all]);
  expect(readFileSync(path).equals(fixture.decoded)).toBe(true);
});

describe('a journal', () => {
  test('that was torn says what stands before the tear, whatever the tear is', async () => {
    await using scratch = Scratch.create('torn');
    const fixture = blobFixture({ lengths, seed: 6 });
    const half = { start: 0, end: fixture.layout.rangeOf(5).end };
    await session(scratch.path, fixture, [half]);
    for (const tear of [Buffer.alloc(4096), Buffer.from('garbage that is no record'), Buffer.alloc(3, 1)]) {
      appendFileSync(journalOf(scratch.path), tear);
      expect((await session(scratch.path, fixture, [half])).fetched).toEqual([]);
    }
  });

  test('that is gone, or of another layout of the blob, says nothing', async () => {
    await using scratch = Scratch.create('gone');
    const fixture = blobFixture({ lengths, seed: 7 });
    const first = { start: 0, end: 1 };
    await session(scratch.path, fixture, [first]);
    truncateSync(journalOf(scratch.path), 10);
    expect((await session(scratch.path, fixture, [first])).fetched).toHaveLength(1);
    const fd = openSync(journalOf(scratch.path), 'r+');
    const identity = { blobId: fixture.layout.blobId, chunkCount: 13, size: fixture.layout.size };
    writeSync(fd, encodeHeader(identity, Buffer.alloc(16)), 0, HEADER_LENGTH, 0);
    closeSync(fd);
    expect((await session(scratch.path, fixture, [first])).fetched).toHaveLength(1);
  });
});
