/** Fills a blob of known content without end, and says on stdout what it was told is there, until it is killed. */
import { writeSync } from 'node:fs';
import { BlobCache } from '@pantala/lazyfs';
import { blobFixture, MemoryFetcher, truthful } from './blob-fixture.ts';

export const FILLED = blobFixture({
  lengths: Array.from({ length: 400 }, (_, chunk) => 1 + ((chunk * 7919) % 20_000)),
  groups: [1, 5, 2],
  seed: 99,
});

/** Whole lines only; the pipe is full when the reader is slow. */
async function say(line: string): Promise<void> {
  for (;;) {
    try {
      writeSync(1, line);
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
    await new Promise(setImmediate);
  }
}

async function main(directory: string, seed: number): Promise<void> {
  await using cache = await BlobCache.open({ directory });
  const fetcher = new MemoryFetcher({ only: truthful(FILLED.stored) });
  await using blob = await cache.blob(FILLED.layout, { fetcher, pieceLength: 20_000 });
  let state = seed;
  const random = (limit: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
  const { signal } = new AbortController();
  const lane = async () => {
    for (;;) {
      const start = random(FILLED.layout.size);
      const end = Math.min(FILLED.layout.size, start + random(30_000));
      await blob.ensure({ start, end }, { urgency: 'demand', signal });
      await say(`there ${start} ${end}\n`);
      if (blob.complete) await new Promise(setImmediate);
    }
  };
  await Promise.all([lane(), lane(), lane()]);
}

const [, script, directory, seed] = process.argv;
if (script === import.meta.filename) await main(directory as string, Number(seed));
