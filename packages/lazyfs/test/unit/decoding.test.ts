import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { BlobCache, RafsLayout } from '@pantala/lazyfs';
import { ChunkMap } from '@pantala/rafs';
import { Scratch } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { buildBlob } from '../../../rafs/test/unit/lib/blobs.ts';
import { DecodeThreads } from '../../src/decoding/decode-threads.ts';
import { MemoryFetcher, noise, truthful } from '../blob-fixture.ts';

const HOW = { compressor: 'zstd', digester: 'blake3', chunkSize: 1024 * 1024, batches: false, toc: false } as const;
const CONTENTS = [300_000, 5_000, 1024 * 1024, 100_001, 70_000].map((length, seed) => noise(length, seed));
const isRoot = process.getuid?.() === 0;
const demand = { urgency: 'demand', signal: new AbortController().signal } as const;

function built() {
  const { blob, chunks, bytes } = buildBlob(CONTENTS, HOW);
  const layout = new RafsLayout(new ChunkMap({ ...blob, id: 'a'.repeat(64) }, chunks));
  return { layout, bytes };
}

test('threads write what is right, leave holes for what is wrong, and say which', async () => {
  await using scratch = Scratch.create('decoding');
  const { layout, bytes } = built();
  const stored = Buffer.from(bytes);
  const wrongAt = layout.group(2).stored.start + 1000;
  stored[wrongAt] = (stored[wrongAt] ?? 0) ^ 1;
  await using file = await open(scratch.join('blob'), 'w+');
  await file.truncate(layout.size);
  await using threads = new DecodeThreads(2);
  const units = [0, 1, 2, 3, 4].map((group) => layout.unitOf(group));
  const job = () => ({ units, start: 0, stored: new Uint8Array(stored), descriptor: file.fd });
  const outcome = await threads.run(job, () => true);
  expect(outcome).toMatchObject({ failure: undefined, wrong: [{ unit: 2 }] });
  const written = readFileSync(scratch.join('blob'));
  for (const [chunk, content] of CONTENTS.entries()) {
    const { start, end } = layout.rangeOf(chunk);
    const expected = chunk === 2 ? Buffer.alloc(content.length) : content;
    expect(written.subarray(start, end).equals(expected)).toBe(true);
  }
  const broken = await threads.run(
    () => ({ ...job(), descriptor: 1_000_000 }),
    () => false,
  );
  expect(broken.failure).toMatchObject({ code: 'internal' });
});

test('many jobs on few threads all end, those that somebody waits for first', async () => {
  await using scratch = Scratch.create('decoding');
  const { layout, bytes } = built();
  await using file = await open(scratch.join('blob'), 'w+');
  await using threads = new DecodeThreads(1);
  const order: number[] = [];
  const jobs = Array.from({ length: 20 }, async (_, at) => {
    const { start, end } = layout.group(1).stored;
    const stored = () => new Uint8Array(bytes.subarray(start, end));
    const make = () => ({ units: [layout.unitOf(1)], start, stored: stored(), descriptor: file.fd });
    expect(await threads.run(make, () => at >= 15)).toEqual({ wrong: [], failure: undefined });
    order.push(at);
  });
  await Promise.all(jobs);
  // The first one was under way before the others came.
  expect(order).toEqual([0, 15, 16, 17, 18, 19, ...Array.from({ length: 14 }, (_, at) => at + 1)]);
});

test.runIf(isRoot)(
  'a disk that is full for a thread is full for the reader, who can read on when it is not',
  async () => {
    await using scratch = Scratch.create('decoding');
    const mount = scratch.join('mount');
    mkdirSync(mount);
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', mount]);
    try {
      await using cache = await BlobCache.open({ directory: `${mount}/cache` });
      const { layout, bytes } = built();
      const fetcher = new MemoryFetcher({ only: truthful(bytes) });
      await using blob = await cache.blob(layout, { fetcher, pieceLength: 0 });
      writeFileSync(`${mount}/ballast`, '');
      const whole = { start: 0, end: layout.size };
      await expect(blob.ensure(whole, demand)).rejects.toMatchObject({ code: 'disk-full' });
      execFileSync('mount', ['-o', 'remount,size=8m', mount]);
      await blob.ensure(whole, demand);
      const file = readFileSync(blob.path);
      for (const [chunk, content] of CONTENTS.entries()) {
        const { start, end } = layout.rangeOf(chunk);
        expect(file.subarray(start, end).equals(content)).toBe(true);
      }
    } finally {
      execFileSync('umount', [mount]);
    }
  },
);
