import { spawn } from 'node:child_process';
import { TarTree, unpackDirectory } from '@pantala/convert';
import { decompressed, isHole, type TarEntry, walkTar } from '@pantala/oci';
import type { RegularFile } from '@pantala/rafs';
import { type ComparisonOptions, compareTrees, makeCorpus, readTree, Scratch, type TreeFacts } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const byRoot = describe.skipIf(process.getuid?.() !== 0);

type Content = readonly Buffer[];

async function read(entry: TarEntry): Promise<Content> {
  const pieces: Buffer[] = [];
  for await (const piece of entry.content())
    pieces.push(isHole(piece) ? Buffer.alloc(piece.length) : Buffer.from(piece));
  return pieces;
}

async function* contentOf({ content }: RegularFile<Content>): AsyncGenerator<Uint8Array> {
  yield* content;
}

byRoot('what GNU tar archives is the tree that it was', () => {
  let scratch: Scratch;
  let corpus: TreeFacts;

  beforeAll(async () => {
    scratch = Scratch.create('tar-formats');
    await makeCorpus(scratch.join('corpus'), { many: 200 });
    // A tar holds no sockets.
    corpus = await readTree(scratch.join('corpus'), ['special/socket']);
  });

  afterAll(() => scratch[Symbol.asyncDispose]());

  /** Archives the corpus with the real program, reads it and writes it out again. */
  async function throughTar(name: string, options: readonly string[]): Promise<TreeFacts> {
    const tar = spawn('tar', ['-C', scratch.join('corpus'), '--numeric-owner', ...options, '-cf', '-', '.'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const tree = new TarTree<Content>();
    for await (const entry of walkTar(decompressed(tar.stdout))) {
      if (entry.kind === 'regular') tree.addFile(entry, await read(entry));
      else tree.add(entry);
    }
    const { lost } = await unpackDirectory(tree.finish().root, scratch.join(name), { content: contentOf });
    expect(lost).toEqual([]);
    return readTree(scratch.join(name));
  }

  /** GNU tar keeps neither of these together. */
  const apart = /^links\/(?:device|fifo)/;
  const options: ComparisonOptions = { except: (path) => (apart.test(path) ? ['nlink', 'hl'] : []) };
  const xattrs = ['--xattrs', '--xattrs-include=*'];

  test.each([
    ['pax', ['--format=pax', ...xattrs]],
    ['pax-gzip', ['--format=pax', ...xattrs, '-z']],
    ['pax-zstd', ['--format=pax', ...xattrs, '--zstd']],
    ['pax-sparse-0.0', ['--format=pax', ...xattrs, '-S', '--sparse-version=0.0']],
    ['pax-sparse-0.1', ['--format=pax', ...xattrs, '-S', '--sparse-version=0.1']],
    ['pax-sparse-1.0', ['--format=pax', ...xattrs, '-S', '--sparse-version=1.0']],
  ])('%s', async (name, flags) => {
    // GNU tar takes access control lists for no extended attributes.
    const found = await throughTar(name, flags);
    const without = (facts: TreeFacts) => new Map([...facts].filter(([path]) => !path.endsWith('list')));
    expect(compareTrees(without(corpus), without(found), options)).toEqual([]);
  });

  test.each([
    ['gnu', ['--format=gnu']],
    ['gnu-sparse', ['--format=gnu', '-S']],
    ['oldgnu-sparse', ['--format=oldgnu', '-S']],
  ])('%s, which has whole seconds and no extended attributes', async (name, flags) => {
    const found = await throughTar(name, flags);
    expect(compareTrees(corpus, found, { ...options, without: ['mtime', 'xattr'] })).toEqual([]);
    expect(found.get('times/nanoseconds')?.mtime).toBe('1600000000000000000');
  });

  test.each(['ustar', 'v7'])('%s, as far as it goes', async (name) => {
    const found = await throughTar(name, [`--format=${name}`]);
    expect(found.size).toBeGreaterThan(500);
    // What the format has no room for is left out or cut off by the program.
    const kept = (path: string) =>
      found.has(path) && !/^symlinks\/length-\d{3}/.test(path) && !path.startsWith('xattrs/long-sym');
    const without = ['mtime', 'xattr', 'nlink', 'hl', 'uid', 'gid'] as const;
    const compared = (facts: TreeFacts) => new Map([...facts].filter(([path]) => kept(path)));
    expect(compareTrees(compared(corpus), compared(found), { without })).toEqual([]);
  });
});
