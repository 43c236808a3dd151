import { createHash } from 'node:crypto';
import { decompressed, type TarEntry, walkTar } from '@pantala/oci';
import { expect, test } from 'vitest';
import { BuildPool, buildFromTar, compileBuildOptions } from '../../src/index.ts';
import { MemorySink } from './lib/build.ts';
import { type Entry, tarOf } from './lib/images.ts';
import { noise } from './lib/members.ts';

const OPTIONS = { compressor: 'zstd', batchSize: 0x1_0000, workers: 2 } as const;

/** Small and large files; half of the bytes are those of other layers. */
function layer(number: number): Promise<Buffer> {
  const entries: Entry[] = Array.from({ length: 30 }, (_, index) => ({
    path: `${index}`,
    content: noise(index % 3 === 0 ? 700_000 : 900, index % 2 === 0 ? `${index}` : `${number} ${index}`),
  }));
  return tarOf(entries);
}

/** @param cut bytes after which the stream breaks */
async function* membersOf(tar: Buffer, cut = Number.POSITIVE_INFINITY): AsyncGenerator<TarEntry> {
  async function* pieces() {
    for (let at = 0; at < tar.length; at += 65_536) {
      if (at >= cut) throw new Error('the line was cut');
      yield tar.subarray(at, at + 65_536);
    }
  }
  yield* walkTar(decompressed(pieces()));
}

test('builds that share threads and memory give what each gives alone, whatever happens to others', async () => {
  const tars = await Promise.all([0, 1, 2, 3].map(layer));
  const alone = await Promise.all(
    tars.map(async (tar) => (await buildFromTar(membersOf(tar), new MemorySink(), OPTIONS)).written?.id),
  );
  expect(new Set(alone).size).toBe(tars.length);
  const builds = 3;
  await using pool = new BuildPool(compileBuildOptions(OPTIONS), builds);
  const shared: (string | undefined)[] = [];
  let next = 0;
  let failed = 0;
  const one = async () => {
    for (let index = next++; index < tars.length; index = next++) {
      const tar = tars[index] as Buffer;
      const broken = buildFromTar(membersOf(tar, 2_000_000), new MemorySink(), { ...OPTIONS, pool });
      await expect(broken).rejects.toThrow('the line was cut');
      failed += 1;
      const sink = new MemorySink();
      const { written } = await buildFromTar(membersOf(tar), sink, { ...OPTIONS, pool });
      expect(written?.id).toBe(createHash('sha256').update(sink.bytes).digest('hex'));
      shared[index] = written?.id;
    }
  };
  await Promise.all(Array.from({ length: builds }, one));
  expect(failed).toBe(tars.length);
  expect(shared).toEqual(alone);
  // Nothing was kept by those that failed: all of the memory is there again.
  const slots = await Promise.all(
    pool.slots.memories.slice(builds).map(() => pool.slots.acquire(AbortSignal.timeout(10_000))),
  );
  expect(new Set(slots).size).toBe(pool.slots.memories.length - builds);
});

test('a pool has no seat for more builds than it was made for', async () => {
  await using pool = new BuildPool(compileBuildOptions(OPTIONS));
  const seat = pool.take();
  expect(() => pool.take()).toThrow('no seat');
  pool.release(seat);
  expect(pool.take().number).toBe(seat.number);
});
