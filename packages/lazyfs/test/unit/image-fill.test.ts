import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { shown } from '@pantala/base';
import { BlobCache, layoutsOf } from '@pantala/lazyfs';
import { readBootstrap, walk } from '@pantala/rafs';
import { Scratch } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { MemoryFetcher } from '../blob-fixture.ts';

const FIXTURES = join(import.meta.dirname, '../../../rafs/test/fixtures/nydus-tools');
const demand = { urgency: 'demand', signal: new AbortController().signal } as const;

interface Expected {
  readonly size: number;
  readonly sha?: string;
}

/** Every blob that the fixtures have, by id. */
const blobs = new Map<string, Buffer>();
for (const folder of readdirSync(FIXTURES)) {
  if (!/^[lmtv]-|^vhead/.test(folder) || folder === 'l-merge-tar') continue;
  for (const id of readdirSync(join(FIXTURES, folder, 'blobs'))) {
    blobs.set(id, readFileSync(join(FIXTURES, folder, 'blobs', id)));
  }
}

test.each([
  ['m-zstd', 'mini'],
  ['m-lz4_block', 'mini'],
  ['m-none', 'mini'],
  ['m-sha256', 'mini'],
  ['m-cs0x10000-lz4', 'mini'],
  ['m-batch-zstd', 'mini'],
  ['m-prefetch-fs', 'mini'],
  ['t-tar-rafs', 'mini'],
  ['t-targz-ref', 'mini'],
  ['vhead-y-zstd', 'tiny'],
  ['l-merge-tar', 'layers-merged'],
])(
  'files of the image %s, built by nydus-image, have their content when they are read from the cache',
  async (image, tree) => {
    await using scratch = Scratch.create('image');
    const expected = JSON.parse(readFileSync(join(FIXTURES, 'src', `${tree}.expect.json`), 'utf8')) as Record<
      string,
      Expected
    >;
    const bootstrap = readBootstrap(readFileSync(join(FIXTURES, image, 'bootstrap')));
    const fetched: string[] = [];
    const ids = bootstrap.image.blobs.map(({ id }) => id);
    await using cache = await BlobCache.open({ directory: scratch.path });
    const open = async () => {
      await using stack = new AsyncDisposableStack();
      const fetcher = new MemoryFetcher({});
      fetcher.fetch = async (blobId, { start, end }) => {
        fetched.push(blobId);
        return { bytes: (blobs.get(blobId) as Buffer).subarray(start, end), source: 'memory' };
      };
      const layouts = await layoutsOf(bootstrap, { directory: cache.directory, fetcher }, demand);
      const handles = [];
      for (const layout of layouts) handles.push(stack.use(await cache.blob(layout, { fetcher, pieceLength: 0 })));
      const owned = stack.move();
      return { handles, [Symbol.asyncDispose]: () => owned.disposeAsync() };
    };
    let checked = 0;
    {
      await using opened = await open();
      for (const { path, node } of walk(bootstrap.image.root)) {
        if (node.kind !== 'regular') continue;
        const hash = createHash('sha256');
        for (const { blobIndex, uncompressedOffset: start, uncompressedSize } of node.content) {
          const handle = opened.handles[blobIndex];
          await handle?.ensure({ start, end: start + uncompressedSize }, demand);
          hash.update(readFileSync(handle?.path ?? '').subarray(start, start + uncompressedSize));
        }
        const wanted = expected[shown(path).slice(1)];
        if (wanted?.sha === undefined) continue;
        expect(hash.digest('hex'), shown(path)).toBe(wanted.sha);
        checked++;
      }
      for (const handle of opened.handles) await handle.ensure({ start: 0, end: handle.size }, demand);
    }
    expect(checked).toBeGreaterThan(3);
    // What was filled stands on its own: nothing is fetched again, not even what leads to the chunks.
    fetched.length = 0;
    await using again = await open();
    expect(again.handles.map(({ complete }) => complete)).toEqual(ids.map(() => true));
    expect(fetched).toEqual([]);
  },
);
