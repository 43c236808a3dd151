import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  compareTrees,
  loopbackPlace,
  makeCorpus,
  Registry,
  readTree,
  readTreeFile,
  run,
  Scratch,
  type TreeFacts,
} from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { image, KernelMount, NO_MOUNTS, planOf, tryImage } from './lib/images.ts';
import { writeLayout } from './lib/oci-layout.ts';

const FIXTURES = join(import.meta.dirname, '..', 'packages', 'rafs', 'test', 'fixtures', 'nydus-tools', 'src');

describe.skipIf(NO_MOUNTS !== undefined)(
  `images in a registry${NO_MOUNTS === undefined ? '' : ` (${NO_MOUNTS})`}`,
  () => {
    let scratch: Scratch;
    let registry: Registry;
    /** Three layers with whiteouts, each in another compression. */
    let layered: string;
    let merged: TreeFacts;
    /** Everything that a directory can hold, as GNU tar archives it. */
    let corpus: string;
    let corpusTree: TreeFacts;

    beforeAll(async () => {
      scratch = Scratch.create('images');
      registry = await Registry.start({ place: loopbackPlace() });
      const layers = ['layer1.tar', 'layer2.tar', 'layer3.tar'].map((name) => readFileSync(join(FIXTURES, name)));
      const forms = ['gzip', 'zstd', 'tar'] as const;
      const inForms = layers.map((tar, index) => ({ tar, form: forms[index] ?? 'tar' }));
      writeLayout(scratch.join('layered'), [{ layers: inForms }]);
      layered = `${registry.host}/e2e/layered:1`;
      await image('copy', `oci:${scratch.join('layered')}`, layered);
      merged = readTreeFile(join(FIXTURES, 'layers-merged.expect.json'));

      await makeCorpus(scratch.join('corpus'));
      // A tar has no sockets, and GNU tar does not see that devices and fifos have two names.
      for (const name of ['special/socket', 'links/device-too', 'links/fifo-too']) {
        await run('rm', [scratch.join('corpus', name)]);
      }
      const tar = scratch.join('corpus.tar');
      const asPosix = ['--format=posix', '--xattrs', '--xattrs-include=*', '--sparse'];
      await run('tar', ['-cf', tar, ...asPosix, '-C', scratch.join('corpus'), '.']);
      writeLayout(scratch.join('corpus-layout'), [{ layers: [{ tar: readFileSync(tar), form: 'gzip' }] }]);
      corpus = `${registry.host}/e2e/corpus:1`;
      await image('copy', `oci:${scratch.join('corpus-layout')}`, corpus);
      corpusTree = await readTree(scratch.join('corpus'));
    });
    afterAll(async () => {
      await registry[Symbol.asyncDispose]();
      await scratch[Symbol.asyncDispose]();
    });

    async function kernelTree(reference: string, work: Scratch): Promise<TreeFacts> {
      const cache = work.join('cache');
      await image('export', reference, '--devices', '--output', cache);
      const plan = await planOf(reference, cache);
      await using mount = await KernelMount.start(
        plan.bootstrap,
        plan.devices.map(({ cacheFile }) => cacheFile),
      );
      return await readTree(mount.path);
    }

    test.each(['zstd', 'lz4_block', 'none'])('layers of every compression become one tree (%s)', async (compressor) => {
      await using work = Scratch.create('convert');
      const nydus = `${registry.host}/e2e/layered:nydus-${compressor}`;
      const converted = await image('convert', layered, nydus, '--compressor', compressor, '--json');
      expect(converted.lines.filter((line) => 'layer' in line)).toHaveLength(3);
      const checked = await image('check', nydus, '--against', layered, '--json');
      expect(checked.lines).toEqual([expect.objectContaining({ ok: true })]);
      // The layers' tars have seconds only, which is all that is expected of them.
      expect(compareTrees(merged, await kernelTree(nydus, work))).toEqual([]);
    });

    test('everything that a directory can hold goes there and back', async () => {
      await using work = Scratch.create('convert');
      const nydus = `${registry.host}/e2e/corpus:nydus`;
      await image('convert', corpus, nydus, '--digester', 'sha256');
      await image('check', nydus, '--against', corpus);
      await image('check', nydus, '--against', scratch.join('corpus'));
      expect(compareTrees(corpusTree, await kernelTree(nydus, work))).toEqual([]);
      await image('unpack', nydus, '--output', work.join('tree'));
      expect(compareTrees(corpusTree, await readTree(work.join('tree')))).toEqual([]);
      const back = `${registry.host}/e2e/corpus:back`;
      const reverted = await image('convert', nydus, back, '--reverse', '--json');
      expect(reverted.lines.at(-1)).toMatchObject({ images: [{ lost: [] }] });
      await image('check', nydus, '--against', back);
      // And again: the same files give the same tree.
      await image('convert', back, `${registry.host}/e2e/corpus:again`);
      await image('check', `${registry.host}/e2e/corpus:again`, '--against', nydus);
    });

    test('small files in batches, small chunks', async () => {
      await using work = Scratch.create('convert');
      const nydus = `${registry.host}/e2e/corpus:batch`;
      await image('convert', corpus, nydus, '--batch-size', '64KiB', '--chunk-size', '64KiB');
      await image('check', nydus, '--against', corpus);
      expect(compareTrees(corpusTree, await kernelTree(nydus, work))).toEqual([]);
    });

    test('several platforms beside their sources; a referrer; the same digest again', async () => {
      await using work = Scratch.create('convert');
      const tar = readFileSync(join(FIXTURES, 'layer1.tar'));
      const other = readFileSync(join(FIXTURES, 'layer3.tar'));
      writeLayout(work.join('layout'), [
        { architecture: 'amd64', layers: [{ tar, form: 'gzip' }] },
        { architecture: 'arm64', layers: [{ tar: other, form: 'zstd' }] },
      ]);
      const source = `${registry.host}/e2e/platforms:1`;
      await image('copy', `oci:${work.join('layout')}`, source);
      const digests = new Set<unknown>();
      for (const tag of ['both', 'again']) {
        const target = `${registry.host}/e2e/platforms:${tag}`;
        const options = ['--all-platforms', '--merge-platform', '--with-referrer', '--json'];
        const { lines } = await image('convert', source, target, ...options);
        digests.add(lines.at(-1)?.digest);
        for (const platform of ['linux/amd64', 'linux/arm64']) {
          await image('check', target, '--platform', platform, '--against', source);
        }
      }
      expect(digests.size).toBe(1);
    });

    test('a build cache: what was converted is not converted again', async () => {
      const cache = `${registry.host}/e2e/cache:1`;
      const first = await image('convert', layered, `${registry.host}/e2e/cached:1`, '--build-cache', cache, '--json');
      const second = await image('convert', layered, `${registry.host}/e2e/cached:2`, '--build-cache', cache, '--json');
      const cached = ({ lines }: typeof first) => lines.filter((line) => 'layer' in line).map((line) => line.cached);
      expect(cached(first)).toEqual([false, false, false]);
      expect(cached(second)).toEqual([true, true, true]);
      expect(second.lines.at(-1)?.digest).toBe(first.lines.at(-1)?.digest);
    });

    test('layouts and archives take and give the same', async () => {
      await using work = Scratch.create('convert');
      mkdirSync(work.join('folder'));
      const places = [`oci:${work.join('layout')}:nydus`, work.join('image.tar')];
      for (const place of places) {
        await image('convert', layered, place);
        await image('check', place, '--against', layered);
      }
      await image('check', places[0] as string, '--against', places[1] as string);
      await image('copy', places[1] as string, `${registry.host}/e2e/copied:1`);
      await image('check', `${registry.host}/e2e/copied:1`, '--against', `oci:${scratch.join('layered')}`);
    });

    test('each difference is a line, and the status says so', async () => {
      const nydus = `${registry.host}/e2e/layered:nydus-different`;
      await image('convert', layered, nydus);
      const { code, stdout } = await tryImage('check', nydus, '--against', corpus);
      expect(code).toBe(76);
      expect(stdout).toMatch(/^\/links\/first: a regular is missing in the image$/m);
      expect(stdout.trim().split('\n').length).toBeGreaterThan(corpusTree.size / 2);
    });

    test('what is not there, no Nydus image, or not to be had is said with its own status', async () => {
      expect(await tryImage('check', `${registry.host}/e2e/nothing:1`)).toMatchObject({ code: 66 });
      const plain = await tryImage('check', layered);
      expect(plain.code).toBe(64);
      expect(plain.stderr).toMatch(/no Nydus image/);
      expect(await tryImage('convert', 'not a reference', layered)).toMatchObject({ code: 64 });
      const away = await tryImage('convert', '127.0.0.1:1/e2e/away:1', layered);
      expect(away.code).toBe(69);
    });
  },
);
