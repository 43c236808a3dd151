import { mkdirSync, readdirSync, readFileSync, renameSync } from 'node:fs';
import { join } from 'node:path';
import {
  compareTrees,
  type EntryFacts,
  type Fact,
  makeCorpus,
  readTree,
  readTreeFile,
  run,
  Scratch,
  type TreeFacts,
} from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { image, mountImage } from '../lib/images.ts';
import { DRIVERS, LazyStage } from '../lib/lazy-stage.ts';
import { FULL } from '../lib/stage.ts';
import { titled, whyNot } from './lib/installed.ts';
import { NydusMount, nydusImage, nydusVersions } from './lib/nydus.ts';

const missing = whyNot('nydus-image', 'nydusd') ?? (process.getuid?.() === 0 ? undefined : 'needs root');
const FIXTURES = join(import.meta.dirname, '..', '..', 'packages', 'rafs', 'test', 'fixtures', 'nydus-tools', 'src');

const COMPRESSORS = ['none', 'lz4_block', 'zstd'];
const DIGESTERS = ['blake3', 'sha256'];
const CHUNK_SIZES = ['0x1000', '0x10000', '0x100000', '0x1000000'];
/** All of them, or each value at least once. */
const MATRIX = COMPRESSORS.flatMap((compressor, row) =>
  DIGESTERS.flatMap((digester, column) => {
    const sizes = FULL ? CHUNK_SIZES : [CHUNK_SIZES[(row * DIGESTERS.length + column) % CHUNK_SIZES.length] as string];
    return sizes.map((chunkSize) => ({ compressor, digester, chunkSize }));
  }),
);

/** nydus-image 2.2.0 takes no access lists, and loses the second name of what is no regular file. */
const UNKNOWN_TO_BUILDER = ['xattrs/access-list', 'xattrs/default-list'];

describe.skipIf(missing !== undefined)(titled('the real nydus-image and nydusd', missing), () => {
  let scratch: Scratch;
  let corpus: string;
  let tree: TreeFacts;
  beforeAll(async () => {
    scratch = Scratch.create('judges');
    corpus = scratch.join('corpus');
    await makeCorpus(corpus, FULL ? { many: 20_000 } : {});
    await run('rm', ['-r', ...UNKNOWN_TO_BUILDER.map((path) => join(corpus, path))]);
    tree = await readTree(corpus);
    console.log(`judges: ${await nydusVersions()} (nydus-rs 2.2.0 as scripts/judges installs it)`);
    console.log('judges: 2.2.0 has no --batch-size and refuses access lists: there the fixtures of 2.4.4 stand in');
  });
  afterAll(() => scratch[Symbol.asyncDispose]());

  /** What nydusd shows otherwise than it is: a time of 0 as that of the mount; a top that everybody may enter. */
  function byNydusd(path: string, { mtime }: EntryFacts): readonly Fact[] {
    const left: Fact[] = path === '.' ? ['mode'] : [];
    if (/^\d{1,9}$/.test(mtime)) left.push('mtime');
    return left;
  }

  /** What it builds otherwise than it is: links of what is no regular file are split, and the root has no time. */
  function byBuilder(path: string, facts: EntryFacts): readonly Fact[] {
    if (path === '.') return ['mtime', 'mode', 'uid', 'gid', 'xattr'];
    return facts.hl !== undefined && facts.sha === undefined ? ['nlink', 'hl'] : [];
  }

  test.each(MATRIX)(
    'accept and show what Pantala builds: $compressor, $digester, chunks of $chunkSize',
    async (options) => {
      await using work = Scratch.create('build');
      const [bootstrap, blobs] = [work.join('boot'), work.join('blobs')];
      const { compressor, digester, chunkSize } = options;
      const choice = ['--compressor', compressor, '--digester', digester, '--chunk-size', chunkSize];
      await image('build', corpus, '-B', bootstrap, '-D', blobs, ...choice);
      const checked = await nydusImage(['check', '-B', bootstrap, '-D', blobs]);
      expect(checked.said).not.toMatch(/ERROR/);
      expect(checked.code).toBe(0);
      const inspected = await nydusImage(['inspect', '-B', bootstrap, '-R', 'blobs']);
      expect(inspected.code).toBe(0);
      expect(inspected.said).toContain(readdirSync(blobs)[0]);
      await using mount = await NydusMount.start(bootstrap, blobs);
      expect(compareTrees(tree, await readTree(mount.path), { except: byNydusd })).toEqual([]);
    },
  );

  test.each(MATRIX)('build what Pantala reads: $compressor, $digester, chunks of $chunkSize', async (options) => {
    await using work = Scratch.create('build');
    const [bootstrap, blobs] = [work.join('boot'), work.join('blobs')];
    mkdirSync(blobs);
    const { compressor, digester, chunkSize } = options;
    const choice = ['--compressor', compressor, '--digester', digester, '--chunk-size', chunkSize];
    const created = await nydusImage(['create', '-t', 'directory', '-B', bootstrap, '-D', blobs, ...choice, corpus]);
    expect(created.code).toBe(0);
    await image('check', bootstrap, '-D', blobs);
    await image('inspect', bootstrap);
    await image('unpack', bootstrap, '-D', blobs, '--output', work.join('tree'));
    expect(compareTrees(tree, await readTree(work.join('tree')), { except: byBuilder })).toEqual([]);
  });

  test.each(DRIVERS)('build what is mounted lazily with $driver $options', async ({ driver, options }) => {
    await using stage = new LazyStage();
    const [bootstrap, blobs] = [stage.scratch.join('boot'), stage.scratch.join('blobs')];
    mkdirSync(blobs);
    const choice = ['--compressor', 'zstd', '--digester', 'sha256', '--chunk-size', '0x10000'];
    const created = await nydusImage(['create', '-t', 'directory', '-B', bootstrap, '-D', blobs, ...choice, corpus]);
    expect(created.code).toBe(0);
    const line = await stage.mount({ tree: corpus, bootstrap, blobs }, 'm', '--no-prefetch', ...options);
    expect(line.driver).toBe(driver);
    expect(compareTrees(tree, await readTree(stage.scratch.join('m')), { except: byBuilder })).toEqual([]);
    await stage.umount('m');
  });

  test.each(['zstd', 'lz4_block'])(
    'a layer of either builder is merged by either into the same tree (%s)',
    async (compressor) => {
      await using work = Scratch.create('merge');
      const blobs = work.join('blobs');
      mkdirSync(blobs);
      const merged: TreeFacts[] = [];
      const expected = readTreeFile(join(FIXTURES, 'layers-merged.expect.json'));
      for (const builder of ['pantala', 'nydus-image']) {
        const layers: string[] = [];
        for (const layer of ['layer1', 'layer2', 'layer3']) {
          const bootstrap = work.join(`${builder}-${layer}`);
          const tar = join(FIXTURES, `${layer}.tar`);
          if (builder === 'pantala') {
            await image('build', tar, '--type', 'tar-rafs', '-B', bootstrap, '-D', blobs, '--compressor', compressor);
          } else {
            const options = ['--compressor', compressor, '--whiteout-spec', 'none'];
            const built = await nydusImage(['create', '-t', 'tar-rafs', '-B', bootstrap, '-D', blobs, ...options, tar]);
            expect(built.code).toBe(0);
          }
          const lines = await image('inspect', bootstrap, '--blobs', '--json');
          const id = lines.lines[0]?.id as string;
          expect(readdirSync(blobs)).toContain(id);
          // nydus-image takes the file's name for the blob's id.
          mkdirSync(work.join(`${builder}-${layer}-named`));
          renameSync(bootstrap, work.join(`${builder}-${layer}-named`, id));
          layers.push(work.join(`${builder}-${layer}-named`, id));
        }
        for (const merger of ['pantala', 'nydus-image']) {
          const output = work.join(`${builder}-by-${merger}`);
          if (merger === 'pantala') await image('merge', ...layers, '-B', output);
          else expect((await nydusImage(['merge', '-B', output, ...layers])).code).toBe(0);
          expect((await nydusImage(['check', '-B', output, '-D', blobs])).code).toBe(0);
          await image('check', output, '-D', blobs);
          await using mount = await NydusMount.start(output, blobs);
          merged.push(await readTree(mount.path));
        }
      }
      for (const found of merged) expect(compareTrees(expected, found, { except: byNydusd })).toEqual([]);
    },
  );

  test('a chunk dictionary, prefetch tables, an inlined bootstrap and a table of contents', async () => {
    await using work = Scratch.create('features');
    const blobs = work.join('blobs');
    await image('build', join(corpus, 'sizes'), '-B', work.join('dict'), '-D', blobs);
    const prefetch = work.join('prefetch');
    await run('sh', ['-c', `printf '/sizes\\n/links/first\\n/nothing\\n' > ${prefetch}`]);
    const options = [
      '--chunk-dict',
      `bootstrap=${work.join('dict')}`,
      '--prefetch-policy',
      'fs',
      '--prefetch-files',
      prefetch,
    ];
    await image('build', corpus, '-B', work.join('boot'), '-D', blobs, '--features', 'blob-toc', ...options);
    const checked = await nydusImage(['check', '-B', work.join('boot'), '-D', blobs]);
    expect([checked.code, checked.said.includes('ERROR')]).toEqual([0, false]);
    const listed = await nydusImage(['inspect', '-B', work.join('boot'), '-R', 'prefetch']);
    expect(listed.said).toMatch(/sizes[\s\S]*links\/first/);
    await using mount = await NydusMount.start(work.join('boot'), blobs);
    expect(compareTrees(tree, await readTree(mount.path), { except: byNydusd })).toEqual([]);
    // The layer as a converter makes it: the bootstrap comes out of the blob again.
    const inlined = work.join('inlined');
    await image('build', corpus, '-D', inlined, '--blob-inline-meta', '--features', 'blob-toc');
    const [id] = readdirSync(inlined);
    await image('merge', join(inlined, id as string), '-B', work.join('merged'));
    await using second = await NydusMount.start(work.join('merged'), inlined);
    expect(compareTrees(tree, await readTree(second.path), { except: byNydusd })).toEqual([]);
  });

  test('the kernel shows what nydus-image builds, with the blobs that Pantala decodes', async () => {
    await using work = Scratch.create('kernel');
    const blobs = work.join('blobs');
    mkdirSync(blobs);
    const created = await nydusImage(['create', '-t', 'directory', '-B', work.join('boot'), '-D', blobs, corpus]);
    expect(created.code).toBe(0);
    await using mount = await mountImage(work.join('boot'), blobs, work.join('cache'));
    const except = (path: string, facts: EntryFacts): readonly Fact[] => {
      if (path === '.') return ['mtime', 'mode', 'uid', 'gid', 'xattr'];
      return facts.hl !== undefined && facts.sha === undefined ? ['nlink', 'hl'] : [];
    };
    expect(compareTrees(tree, await readTree(mount.path), { except })).toEqual([]);
    expect(readFileSync(work.join('boot')).length % 4096).toBe(0);
  });
});
