import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { zstdCompressSync } from 'node:zlib';
import { compareTrees, readTree, readTreeFile, run, Scratch } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { image, mountImage, NO_MOUNTS, tryImage } from './lib/images.ts';

const NYDUS_TOOLS = join(import.meta.dirname, '..', 'packages', 'rafs', 'test', 'fixtures', 'nydus-tools');
const TARS = [
  'trailing-zeros.tar',
  'gzip-members.tar.gz',
  'gzip-padded.tar.gz',
  'global-header.tar',
  'newlines.tar',
  'not-utf-8.tar',
  'hard-link-first.tar',
  'contiguous.tar',
  'long-symlinks.tar',
  'long-names.tar',
  'twice.tar',
  'file-becomes-folder.tar',
  'sparse-gnu.tar',
  'sparse-posix.tar',
  'zstd.tar.zst',
];

describe.skipIf(NO_MOUNTS !== undefined)(`odd sources${NO_MOUNTS === undefined ? '' : ` (${NO_MOUNTS})`}`, () => {
  let scratch: Scratch;
  beforeAll(async () => {
    scratch = Scratch.create('odd');
    await run('python3', [join(import.meta.dirname, 'lib', 'odd_tars.py'), scratch.path]);
    mkdirSync(scratch.join('sparse'));
    await run('sh', [
      '-c',
      `cd ${scratch.join('sparse')} && truncate -s 3M holed && printf middle | dd of=holed bs=1 seek=1500000 conv=notrunc status=none && truncate -s 1M empty && printf end >> full`,
    ]);
    for (const format of ['gnu', 'posix']) {
      await run('tar', [
        '-cf',
        scratch.join(`sparse-${format}.tar`),
        '--sparse',
        `--format=${format}`,
        '-C',
        scratch.join('sparse'),
        '.',
      ]);
    }
    writeFileSync(scratch.join('zstd.tar.zst'), zstdCompressSync(readFileSync(scratch.join('hard-link-first.tar'))));
  });
  afterAll(() => scratch[Symbol.asyncDispose]());

  test.each(TARS)('%s is what a tar means', async (name) => {
    await using work = Scratch.create('tar');
    const blobs = work.join('blobs');
    await image('build', scratch.join(name), '--type', 'tar', '-B', work.join('boot'), '-D', blobs);
    await image('check', work.join('boot'), '-D', blobs, '--against', scratch.join(name));
    await using mount = await mountImage(work.join('boot'), blobs, work.join('cache'));
    const found = await readTree(mount.path);
    mkdirSync(work.join('unpacked'));
    if (name === 'hard-link-first.tar' || name === 'zstd.tar.zst') {
      // GNU tar cannot: it wants the target there.
      expect([...found.keys()]).toEqual(['.', 'link', 'target']);
      expect(found.get('link')).toMatchObject({ nlink: 2, size: 7, hl: 'link' });
      expect(found.get('target')?.hl).toBe('link');
      return;
    }
    const unpacked = work.join('unpacked');
    await run('tar', ['-xpf', scratch.join(name), '--xattrs', '--xattrs-include=*', '-C', unpacked]).catch(
      (error: unknown) => {
        // It complains of zeros behind the end of gzip, after it has unpacked everything.
        if (name !== 'gzip-padded.tar.gz') throw error;
      },
    );
    const expected = await readTree(unpacked);
    expect(expected.size).toBeGreaterThan(1);
    // Directories that the tar does not mention get the time at which tar makes them.
    const implied = (path: string) => (name === 'long-names.tar' && /^d(\/d)*$/.test(path) ? (['mtime'] as const) : []);
    expect(compareTrees(expected, found, { except: implied })).toEqual([]);
  });

  test('git archive', async () => {
    await using work = Scratch.create('git');
    const repository = join(import.meta.dirname, '..');
    const listed = await run('git', ['-C', repository, 'rev-parse', 'HEAD'], { check: false });
    if (listed.code !== 0) return;
    const git = [
      '-c',
      'safe.directory=*',
      '-C',
      repository,
      'archive',
      '--format=tar',
      '-o',
      work.join('a.tar'),
      'HEAD',
      'docs',
    ];
    await run('git', git);
    await image('build', work.join('a.tar'), '-B', work.join('boot'), '-D', work.join('blobs'));
    await image('check', work.join('boot'), '-D', work.join('blobs'), '--against', work.join('a.tar'));
    const { stdout } = await image('inspect', work.join('boot'), '--path', 'docs');
    expect(stdout).toMatch(/docs\/ARCHITECTURE\.md$/m);
  });

  test.each([
    ['leaves.tar', /\.\.\/outside/],
    ['leaves-by-link.tar', /\.\.\/\.\.\/etc\/passwd/],
  ])('%s: a name that leaves the root is refused by name', async (name, said) => {
    await using work = Scratch.create('tar');
    const refused = await tryImage('build', scratch.join(name), '-B', work.join('boot'), '-D', work.join('blobs'));
    expect(refused.code).toBe(64);
    expect(refused.stderr).toMatch(said);
    expect(readdirSync(work.join('blobs'))).toEqual([]);
  });

  test('a tar that is cut off leaves neither blob nor bootstrap', async () => {
    await using work = Scratch.create('tar');
    const whole = readFileSync(scratch.join('trailing-zeros.tar'));
    writeFileSync(work.join('cut.tar'), whole.subarray(0, 9000));
    const refused = await tryImage('build', work.join('cut.tar'), '-B', work.join('boot'), '-D', work.join('blobs'));
    expect(refused.code).toBe(76);
    expect(readdirSync(work.path).sort()).toEqual(['blobs', 'cut.tar']);
    expect(readdirSync(work.join('blobs'))).toEqual([]);
  });

  test('whiteouts stay in a layer of a directory, and a merge removes what they name', async () => {
    await using work = Scratch.create('layers');
    const blobs = work.join('blobs');
    await run('sh', [
      '-c',
      `cd ${work.path} && mkdir -p low/d low/o up/o && echo a > low/d/gone && echo b > low/stays && echo c > low/o/old && mkdir up/d && touch up/d/.wh.gone up/o/.wh..wh..opq && echo n > up/o/new`,
    ]);
    for (const name of ['low', 'up'])
      await image('build', work.join(name), '-B', work.join(`${name}.boot`), '-D', blobs);
    await image('merge', work.join('low.boot'), work.join('up.boot'), '-B', work.join('merged'));
    await using mount = await mountImage(work.join('merged'), blobs, work.join('cache'));
    expect([...(await readTree(mount.path)).keys()]).toEqual(['.', 'd', 'o', 'o/new', 'stays']);
    // The same with a parent at once.
    await image(
      'build',
      work.join('up'),
      '-B',
      work.join('onto'),
      '-D',
      blobs,
      '--parent-bootstrap',
      work.join('low.boot'),
    );
    await image('check', work.join('onto'), '-D', blobs, '--against', work.join('merged')).catch((error: unknown) => {
      // Beside another image's bootstrap lie no blobs: only the trees are compared.
      if (!String(error).includes('no blob')) throw error;
    });
    const listed = async (bootstrap: string) => (await image('inspect', work.join(bootstrap))).stdout;
    expect(await listed('onto')).toBe(await listed('merged'));
  });

  test('overlayfs says it with devices and attributes', async () => {
    await using work = Scratch.create('layers');
    const blobs = work.join('blobs');
    await run('sh', [
      '-c',
      `cd ${work.path} && mkdir -p low/o up/o && echo a > low/gone && echo c > low/o/old && mknod up/gone c 0 0 && echo n > up/o/new`,
    ]);
    await run('python3', ['-c', `import os; os.setxattr('${work.join('up', 'o')}', 'trusted.overlay.opaque', b'y')`]);
    for (const name of ['low', 'up'])
      await image('build', work.join(name), '-B', work.join(`${name}.boot`), '-D', blobs);
    await image(
      'merge',
      work.join('low.boot'),
      work.join('up.boot'),
      '-B',
      work.join('merged'),
      '--whiteout-spec',
      'overlayfs',
    );
    await using mount = await mountImage(work.join('merged'), blobs, work.join('cache'));
    const tree = await readTree(mount.path);
    expect([...tree.keys()]).toEqual(['.', 'o', 'o/new']);
    expect(tree.get('o')?.xattr).toBeUndefined();
  });
});

describe('what the real tools get wrong', () => {
  test("a blob's id is not the name of its bootstrap's file", async () => {
    await using work = Scratch.create('merge');
    const layers: string[] = [];
    for (const number of [1, 2, 3]) {
      mkdirSync(work.join(`${number}`));
      const bootstrap = work.join(`${number}`, 'bootstrap');
      writeFileSync(bootstrap, readFileSync(join(NYDUS_TOOLS, `l-tar-${number}`, 'bootstrap')));
      await run('cp', ['-r', join(NYDUS_TOOLS, `l-tar-${number}`, 'blobs'), work.path]);
      layers.push(bootstrap);
    }
    await image('merge', ...layers, '-B', work.join('merged'));
    const { stdout } = await image('check', work.join('merged'), '-D', work.join('blobs'));
    expect(stdout).toMatch(/3 blobs, .*all right/);
    const { lines } = await image('inspect', work.join('merged'), '--json');
    const expected = readTreeFile(join(NYDUS_TOOLS, 'src', 'layers-merged.expect.json'));
    expect(lines).toHaveLength(expected.size);
  });

  test('a bootstrap that does not know its blob needs to be told', async () => {
    await using work = Scratch.create('merge');
    mkdirSync(work.join('source'));
    writeFileSync(work.join('source', 'file'), 'content');
    await image('build', work.join('source'), '-D', work.join('blobs'), '--blob-inline-meta');
    const [id] = readdirSync(work.join('blobs'));
    const blob = readFileSync(work.join('blobs', id as string));
    // The section before the last header is the bootstrap; its header says its length.
    const length = Number.parseInt(blob.subarray(-512 + 124, -512 + 135).toString(), 8);
    writeFileSync(work.join('bootstrap'), blob.subarray(-512 - length, -512));
    const refused = await tryImage('merge', work.join('bootstrap'), '-B', work.join('merged'));
    expect(refused.code).toBe(64);
    expect(refused.stderr).toMatch(/--blob-digests/);
    await image('merge', work.join('bootstrap'), '-B', work.join('merged'), '--blob-digests', id as string);
    const { lines } = await image('inspect', work.join('merged'), '--blobs', '--json');
    expect(lines[0]?.id).toBe(id);
  });

  test('a blob with its bootstrap in it is checked like any other', async () => {
    await using work = Scratch.create('inline');
    mkdirSync(work.join('source'));
    writeFileSync(work.join('source', 'file'), 'content'.repeat(1000));
    for (const features of [[], ['--features', 'blob-toc']]) {
      const blobs = work.join(`blobs${features.length}`);
      await image('build', work.join('source'), '-D', blobs, '--blob-inline-meta', ...features);
      const [id] = readdirSync(blobs);
      const { lines } = await image('check', join(blobs, id as string), '--against', work.join('source'), '--json');
      expect(lines.at(-1)).toMatchObject({ ok: true, chunks: 1 });
    }
  });

  test('malformed bootstraps are refused with the field and its offset, quickly', async () => {
    const malformed = readdirSync(join(NYDUS_TOOLS, 'malformed')).filter(
      (name) => name.endsWith('.boot') && name !== 'valid.boot',
    );
    expect(malformed.length).toBeGreaterThan(40);
    // Each starts the whole command: some of every kind here, all of them in the tests of rafs.
    for (const path of ['dir-cycle.boot', 'de-nid.boot', 'sb-magic.boot', 'blob-count.boot', 'xa-namelen.boot']) {
      const refused = await tryImage('inspect', join(NYDUS_TOOLS, 'malformed', path));
      expect([basename(path), refused.code === 76 || refused.code === 64]).toEqual([basename(path), true]);
      expect(refused.stderr).toMatch(/at offset \d+|neither a RAFS v6 bootstrap/);
      expect(refused.stdout).toBe('');
    }
  });
});
