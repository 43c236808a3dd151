import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { nydusBootstrap } from '@pantala/convert/nydus-bootstrap';
import { openImageSource } from '@pantala/oci';
import { readTree, run } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { image } from './lib/images.ts';
import { DRIVERS, LazyStage } from './lib/lazy-stage.ts';
import { writeLayout } from './lib/oci-layout.ts';
import { FULL } from './lib/stage.ts';

const root = process.getuid?.() === 0;
/** As many as an image of a container runtime has at most. */
const LAYERS = 127;
const CHUNK = 64 * 1024;
/** Compares a file with another one by what a program sees that has mapped both. */
const MAPPED = `
import mmap, sys
files = [open(path, "rb") for path in sys.argv[1:]]
maps = [mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) for file in files]
# From the end to the beginning: no page was read ahead for the one before it.
pages = range(len(maps[0]) - 1, -1, -4096)
print(all(maps[0][at] == maps[1][at] for at in pages) and maps[0][:] == maps[1][:])
`;

describe.skipIf(!root).each(FULL ? DRIVERS : DRIVERS.slice(0, 2))(
  'images of many blobs with $driver $options (as root)',
  ({ options }) => {
    let stage: LazyStage;

    beforeAll(() => {
      stage = new LazyStage();
    });
    afterAll(async () => {
      await stage[Symbol.asyncDispose]();
    });

    test(`${LAYERS} layers, each a blob of its own, are one tree`, async () => {
      const tree = stage.scratch.join('tree');
      mkdirSync(tree);
      const tars = stage.scratch.join('tars');
      mkdirSync(tars);
      // A file of each layer's own, and one that only the last one's is seen of.
      const each = 'tar -cf "$1/$i" of-$i; rm -f of-all; cp of-$i of-all; tar -rf "$1/$i" of-all';
      const all = `i=0; while [ $i -lt ${LAYERS} ]; do head -c $((5000 + i)) /dev/urandom > of-$i; ${each}; i=$((i+1)); done`;
      await run('sh', ['-c', all, 'sh', tars], { cwd: tree });
      const layers = Array.from({ length: LAYERS }, (_, at) => ({
        tar: readFileSync(join(tars, String(at))),
        form: 'tar' as const,
      }));
      writeLayout(stage.scratch.join('layout'), [{ layers }]);
      const converted = `oci:${stage.scratch.join('nydus')}`;
      await image('convert', `oci:${stage.scratch.join('layout')}`, converted);
      await using source = await openImageSource(converted, {});
      const bootstrap = stage.scratch.join('deep.boot');
      writeFileSync(bootstrap, await nydusBootstrap(source));
      const blobs = stage.scratch.join('nydus', 'blobs', 'sha256');
      await stage.mount({ tree, bootstrap, blobs }, 'deep', '--no-prefetch', ...options);
      expect(stage.log()).toContain(`"blobs":${LAYERS}`);
      const [expected, found] = [await readTree(tree), await readTree(stage.scratch.join('deep'))];
      for (const [path, { sha }] of expected) expect(found.get(path)?.sha, path).toBe(sha);
      await stage.umount('deep');
    });

    test('reads across the borders of chunks and blobs, and maps of cold files, have the bytes of the tree', async () => {
      const [lower, upper] = [stage.scratch.join('lower'), stage.scratch.join('upper')];
      mkdirSync(lower);
      mkdirSync(upper);
      const shared = randomBytes(16 * CHUNK);
      writeFileSync(join(lower, 'shared'), shared);
      // So that no chunk begins at the number at which its neighbour in the other blob ends.
      writeFileSync(join(upper, 'before'), randomBytes(7 * CHUNK));
      // Three chunks of one blob, then three of the other, again and again, and an end within a page.
      const parts = Array.from({ length: 5 }, (_, at) => [
        shared.subarray(at * 3 * CHUNK, (at + 1) * 3 * CHUNK),
        randomBytes(3 * CHUNK),
      ]).flat();
      for (const name of ['read', 'mapped'])
        writeFileSync(join(upper, name), Buffer.concat([...parts, randomBytes(777)]));
      const chunks = ['--chunk-size', '64KiB'];
      const first = await stage.build(lower, chunks);
      const second = await stage.build(upper, [...chunks, '--chunk-dict', `bootstrap=${first.bootstrap}`]);
      await stage.mount(second, 'borders', '--no-prefetch', ...options);
      const [origin, mapped] = [upper, stage.scratch.join('borders')].map((folder) => join(folder, 'mapped'));
      expect((await run('python3', ['-c', MAPPED, origin ?? '', mapped ?? ''])).stdout).toBe('True\n');
      const found = await stage.compared(await stage.compare(second, 'borders', 8, 1));
      expect(found).toMatchObject({ errors: [], wrong: [] });
      expect(found.reads).toBeGreaterThan(20);
      expect(stage.log()).toContain('"blobs":2');
      await stage.umount('borders');
    });

    test('chunks that the kernel would take from the wrong blob are right, or refused', async () => {
      const [lower, upper] = [stage.scratch.join('even'), stage.scratch.join('odd')];
      mkdirSync(lower);
      mkdirSync(upper);
      const shared = randomBytes(6 * CHUNK);
      writeFileSync(join(lower, 'shared'), shared);
      const own = () => randomBytes(CHUNK);
      // Own chunk 0 of one blob, then chunk 1 of the other, and so on.
      const [even, odd] = [
        [own(), shared.subarray(CHUNK, 2 * CHUNK), own(), own(), shared.subarray(3 * CHUNK, 4 * CHUNK)],
        [own(), own(), shared.subarray(4 * CHUNK, 5 * CHUNK), own()],
      ];
      writeFileSync(join(upper, 'a'), Buffer.concat(even));
      writeFileSync(join(upper, 'b'), Buffer.concat(odd));
      const chunks = ['--chunk-size', '64KiB'];
      const first = await stage.build(lower, chunks);
      const second = await stage.build(upper, [...chunks, '--chunk-dict', `bootstrap=${first.bootstrap}`]);
      const mount = stage.mount(second, 'mixed', '--no-prefetch', ...options);
      if (options.includes('--loop')) {
        await expect(mount).rejects.toThrow(/neighbouring chunks in two blobs/);
        return;
      }
      await mount;
      const found = await stage.compared(await stage.compare(second, 'mixed', 8, 1));
      expect(found).toMatchObject({ errors: [], wrong: [] });
      await stage.umount('mixed');
    });
  },
);
