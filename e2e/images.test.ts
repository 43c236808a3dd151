import { existsSync, mkdirSync, readdirSync, renameSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { compareTrees, makeCorpus, readTree, run, Scratch, type TreeFacts, withinItself } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { image, KernelMount, mountImage, NO_MOUNTS, planOf, tryImage } from './lib/images.ts';
import { FULL } from './lib/stage.ts';

const COMPRESSORS = ['none', 'lz4_block', 'zstd'];
const DIGESTERS = ['blake3', 'sha256'];
const CHUNK_SIZES = ['4KiB', '64KiB', '1MiB', '16MiB'];
/** What large directories and files are built with: the least and the largest chunks, both compressors and digests. */
const OF_LARGE = [
  ['--compressor', 'lz4_block', '--digester', 'blake3', '--chunk-size', '4KiB'],
  ['--compressor', 'zstd', '--digester', 'sha256', '--chunk-size', '16MiB', '--batch-size', '128KiB'],
];
/** And a whole system. */
const OF_SYSTEM = [
  ['--compressor', 'lz4_block', '--digester', 'blake3'],
  ['--compressor', 'zstd', '--digester', 'sha256', '--chunk-size', '64KiB', '--batch-size', '64KiB'],
];
const GIB = 1024 ** 3;

/** What the quick set leaves out. */
const describeInFull = FULL ? describe.skipIf(NO_MOUNTS !== undefined) : undefined;
const needs = NO_MOUNTS === undefined ? '' : ` (${NO_MOUNTS})`;

describe.skipIf(NO_MOUNTS !== undefined)(`images that Pantala builds${needs}`, () => {
  let scratch: Scratch;
  let corpus: string;
  let tree: TreeFacts;
  beforeAll(async () => {
    scratch = Scratch.create('images');
    corpus = scratch.join('corpus');
    await makeCorpus(corpus);
    tree = await readTree(corpus);
  });
  afterAll(() => scratch[Symbol.asyncDispose]());

  const matrix = COMPRESSORS.flatMap((compressor) => DIGESTERS.map((digester) => ({ compressor, digester })));
  test.each(
    matrix.flatMap((each, index) => {
      const sizes = FULL ? CHUNK_SIZES : [CHUNK_SIZES[(index + 1) % CHUNK_SIZES.length]];
      return sizes.map((chunkSize) => ({ ...each, chunkSize: chunkSize as string }));
    }),
  )('$compressor, $digester, chunks of $chunkSize: the kernel shows the source', async (options) => {
    const { compressor, digester, chunkSize } = options;
    const choice = ['--compressor', compressor, '--digester', digester, '--chunk-size', chunkSize];
    await expectSame(corpus, tree, choice);
  });

  test('small files in batches: the kernel shows the source, and the blob is smaller', async () => {
    await using work = Scratch.create('build');
    const sizes: number[] = [];
    for (const batch of ['0', '128KiB']) {
      const [bootstrap, blobs] = [work.join(`boot-${batch}`), work.join(`blobs-${batch}`)];
      const { lines } = await image('build', corpus, '-B', bootstrap, '-D', blobs, '--batch-size', batch, '--json');
      sizes.push(lines[0]?.blobBytes as number);
      await image('check', bootstrap, '-D', blobs, '--against', corpus);
      await using mount = await mountImage(bootstrap, blobs, work.join(`cache-${batch}`));
      expect(compareTrees(tree, await readTree(mount.path))).toEqual([]);
    }
    expect(sizes[1]).toBeLessThan(sizes[0] as number);
  });

  test('one disk without devices', async () => {
    await using work = Scratch.create('build');
    await image('build', corpus, '-B', work.join('boot'), '-D', work.join('blobs'));
    await image('export', work.join('boot'), '-D', work.join('blobs'), '--block', '--output', work.join('disk'));
    await using mount = await KernelMount.start(work.join('disk'));
    expect(compareTrees(tree, await readTree(mount.path))).toEqual([]);
  });

  test('unpacked by root they are the source, as a directory and as a tar', async () => {
    await using work = Scratch.create('build');
    const input = [work.join('boot'), '-D', work.join('blobs')];
    await image('build', corpus, '-B', work.join('boot'), '-D', work.join('blobs'));
    const unpacked = await image('unpack', ...input, '--output', work.join('tree'), '--json');
    expect(unpacked.lines).toEqual([expect.objectContaining({ lost: [] })]);
    expect(compareTrees(tree, await readTree(work.join('tree')))).toEqual([]);
    const packed = await image('unpack', ...input, '--output', work.join('tree.tar'), '--json');
    expect(packed.lines).toEqual([
      expect.objectContaining({ lost: [expect.objectContaining({ what: 'socket', path: 'special/socket' })] }),
    ]);
    mkdirSync(work.join('from-tar'));
    await run('tar', ['-xpf', work.join('tree.tar'), '--xattrs', '--xattrs-include=*', '-C', work.join('from-tar')]);
    const withoutSocket = new Map(tree);
    withoutSocket.delete('special/socket');
    // GNU tar neither sets access lists from such records nor attributes of what it makes by mknod and symlink.
    const byTar = { except: (path: string) => (/^xattrs\/|^$/.test(path) ? (['xattr', 'mode'] as const) : []) };
    expect(compareTrees(withoutSocket, await readTree(work.join('from-tar')), byTar)).toEqual([]);
    await image('check', ...input, '--against', work.join('tree.tar')).catch((error: unknown) => {
      expect(String(error)).toMatch(/special\/socket: a socket that is not in the source/);
    });
  });

  test('unpacked by somebody else everything is there that he may have, and what he may not have is said', async () => {
    await using work = Scratch.create('build');
    await image('build', corpus, '-B', work.join('boot'), '-D', work.join('blobs'));
    await run('chmod', ['-R', 'a+rX', work.path]);
    await run('chmod', ['a+rwx', work.path]);
    const node = process.execPath;
    const main = join(import.meta.dirname, '..', 'packages', 'cli', 'src', 'main.ts');
    const args = ['image', 'unpack', work.join('boot'), '-D', work.join('blobs'), '-O', work.join('tree'), '--json'];
    const as = ['--reuid', '65534', '--regid', '65534', '--clear-groups'];
    const { stdout } = await run('setpriv', [...as, node, main, ...args], {
      env: { NODE_COMPILE_CACHE: work.join('cc') },
    });
    const { lost, entries } = JSON.parse(stdout.trim()) as { lost: { what: string }[]; entries: number };
    expect(entries).toBe(tree.size);
    expect(lost.map(({ what }) => what).sort()).toEqual(['device', 'owner', 'xattr security.*', 'xattr trusted.*']);
    const isDevice = (mode: string): boolean => /^[26]0/.test(mode) && mode.length === 5;
    const expected = new Map([...tree].filter(([, { mode }]) => !isDevice(mode)));
    const found = await readTree(work.join('tree'));
    const differences = compareTrees(expected, found, {
      without: ['uid', 'gid', 'xattr'],
      // Setting a group that is not one's own takes setgid away; devices are links of nothing.
      except: (path) => (/^modes\/|^\.$/.test(path) ? ['mode', 'nlink'] : []),
    });
    expect(differences).toEqual([]);
  });

  test('the same source gives the same bytes', async () => {
    await using work = Scratch.create('build');
    for (const name of ['one', 'two']) {
      await image(
        'build',
        corpus,
        '-B',
        work.join(name, 'boot'),
        '-D',
        work.join(name, 'blobs'),
        '--threads',
        name === 'one' ? '1' : '4',
      );
    }
    await run('diff', ['-r', work.join('one'), work.join('two')]);
  });

  test('a chunk dictionary: what it has is not stored again, and the kernel shows the source', async () => {
    await using work = Scratch.create('build');
    const blobs = work.join('blobs');
    await image('build', corpus, '-B', work.join('dict'), '-D', blobs);
    mkdirSync(work.join('source'));
    await run('cp', ['-a', join(corpus, 'sizes'), work.join('source')]);
    writeFileSync(work.join('source', 'new'), 'something that the dictionary does not have');
    const built = await image(
      'build',
      work.join('source'),
      '-B',
      work.join('boot'),
      '-D',
      blobs,
      '--chunk-dict',
      `bootstrap=${work.join('dict')}`,
      '--json',
    );
    expect(built.lines[0]?.blobBytes).toBeLessThan(16 * 1024);
    expect(built.lines[0]?.blobs).toHaveLength(2);
    await image('check', work.join('boot'), '-D', blobs, '--against', work.join('source'));
    await using mount = await mountImage(work.join('boot'), blobs, work.join('cache'));
    expect(compareTrees(await readTree(work.join('source')), await readTree(mount.path))).toEqual([]);
  });

  test('a device that is filled in part is never taken for a whole one', async () => {
    await using work = Scratch.create('build');
    const [bootstrap, blobs, cache] = [work.join('boot'), work.join('blobs'), work.join('cache')];
    await image('build', corpus, '-B', bootstrap, '-D', blobs);
    const [device] = (await planOf(bootstrap, cache, '-D', blobs)).devices;
    mkdirSync(cache);
    // As long as it should be, and empty: what the kernel would show as zeros.
    writeFileSync(device?.cacheFile ?? '', '');
    truncateSync(device?.cacheFile ?? '', device?.size);
    expect((await planOf(bootstrap, cache, '-D', blobs)).devices[0]?.complete).toBe(false);
    await using mount = await mountImage(bootstrap, blobs, cache);
    expect((await planOf(bootstrap, cache, '-D', blobs)).devices[0]?.complete).toBe(true);
    expect(compareTrees(tree, await readTree(mount.path))).toEqual([]);
    // Without its blob nothing is left that looks like a device.
    const [blob] = readdirSync(blobs);
    renameSync(join(blobs, blob as string), work.join('away'));
    const failed = await tryImage('export', bootstrap, '-D', blobs, '--devices', '--output', work.join('other'));
    expect(failed.code).toBe(66);
    expect(existsSync(work.join('other')) ? readdirSync(work.join('other')) : []).toEqual([]);
  });
});

describeInFull?.(`a directory of 100,000 files and a file of 5 GiB${needs}`, () => {
  let scratch: Scratch;
  let tree: TreeFacts;
  beforeAll(async () => {
    scratch = Scratch.create('large');
    await makeCorpus(scratch.join('corpus'), { many: 100_000, large: 5 * GIB });
    tree = await readTree(scratch.join('corpus'));
  });
  afterAll(() => scratch[Symbol.asyncDispose]());

  test.each(OF_LARGE.map((choice) => ({ choice, name: choice.join(' ') })))(
    '$name: the kernel shows the source',
    ({ choice }) => expectSame(scratch.join('corpus'), tree, choice),
  );
});

describe.skipIf(NO_MOUNTS !== undefined)(`this machine's own files${needs}`, () => {
  const source = FULL ? '/usr' : '/usr/bin';
  test(`${source} is the same file by file when the kernel has mounted it`, async () => {
    const tree = withinItself(await readTree(source));
    expect(tree.size).toBeGreaterThan(100);
    for (const choice of FULL ? OF_SYSTEM : OF_SYSTEM.slice(0, 1)) await expectSame(source, tree, choice);
  });
});

/** Builds an image of the directory; neither `check` nor the kernel may find a difference. */
async function expectSame(source: string, tree: TreeFacts, choice: readonly string[]): Promise<void> {
  await using work = Scratch.create('build');
  const [bootstrap, blobs] = [work.join('boot'), work.join('blobs')];
  await image('build', source, '-B', bootstrap, '-D', blobs, ...choice);
  const checked = await image('check', bootstrap, '-D', blobs, '--against', source, '--json');
  expect(checked.lines).toEqual([expect.objectContaining({ ok: true, problems: 0, differences: 0 })]);
  await using mount = await mountImage(bootstrap, blobs, work.join('cache'));
  expect(compareTrees(tree, await readTree(mount.path))).toEqual([]);
}
