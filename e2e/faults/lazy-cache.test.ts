import { randomBytes } from 'node:crypto';
import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { readTree, run, until } from '@pantala/testkit';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type BuiltImage, LazyStage } from '../lib/lazy-stage.ts';
import { FULL, MIB } from '../lib/stage.ts';

const root = process.getuid?.() === 0;
/** What happens to the cache of an image while nobody serves. */
const HARMS = {
  'bytes of the cache file were changed': (data: string) => {
    const file = openSync(data, 'r+');
    for (let at = 0; at < statSync(data).size; at += 64 * 1024) writeSync(file, 'changed', at + 100);
    closeSync(file);
  },
  'the cache file is shorter': (data: string) => truncateSync(data, 4096),
  'the journal is torn': (_: string, journal: string) =>
    truncateSync(journal, Math.ceil(statSync(journal).size / 2) + 3),
  'the journal is empty': (_: string, journal: string) => truncateSync(journal, 0),
  'the journal is something else': (_: string, journal: string) => writeFileSync(journal, randomBytes(5000)),
};

describe.skipIf(!root).each(['fanotify', 'fuse'] as const)('a cache that was harmed, by %s (as root)', (driver) => {
  let stage: LazyStage;
  beforeEach(() => {
    stage = new LazyStage();
  });
  afterEach(async () => {
    await stage[Symbol.asyncDispose]();
  });

  function treeOf(name: string): string {
    const tree = stage.scratch.join(name);
    mkdirSync(tree);
    writeFileSync(join(tree, 'large'), randomBytes(2 * MIB + 333));
    writeFileSync(join(tree, 'small'), randomBytes(333));
    return tree;
  }

  /** What is found in a cache does not depend on the driver. */
  const testOnce = driver === 'fuse' && !FULL ? undefined : test;

  testOnce?.('everything was killed, and caches and journals were harmed: every tree is right afterwards', async () => {
    const images: BuiltImage[] = [];
    const caches: string[] = [];
    for (const [at] of Object.entries(HARMS).entries()) {
      const image = await stage.build(treeOf(`tree${at}`), ['--chunk-size', '64KiB']);
      images.push(image);
      await stage.mount(image, `m${at}`, '--no-prefetch', '--driver', driver);
      // All but the small file, so that none is complete.
      await run('sh', ['-c', `head -c ${MIB} ${stage.scratch.join(`m${at}`, 'large')} > /dev/null`]);
      const fresh = readdirSync(stage.places.blobs).filter((name) => name.endsWith('.blob.data'));
      caches.push(fresh.find((name) => !caches.includes(name)) ?? '');
    }
    await stage.killEverything();
    for (const [at, harm] of Object.values(HARMS).entries()) {
      const data = join(stage.places.blobs, caches[at] ?? '');
      harm(data, data.replace(/data$/, 'fill'));
    }
    // The next mount starts a worker, which finds the others lost.
    await stage.mount(await stage.build(treeOf('last')), 'last', '--no-prefetch', '--driver', driver);
    for (const [at, name] of Object.keys(HARMS).entries()) {
      const { tree } = images[at] as BuiltImage;
      expect(await readTree(stage.scratch.join(`m${at}`)), name).toEqual(await readTree(tree));
    }
  });

  test('bytes of a cache file are changed, and the worker alone is killed: the mount is lost, and right afterwards', async () => {
    const image = await stage.build(treeOf('tree'), ['--chunk-size', '64KiB']);
    const other = await stage.build(treeOf('other'), ['--chunk-size', '64KiB']);
    const { guardianPid } = await stage.mount(image, 'm', '--no-prefetch', '--driver', driver);
    const [data = ''] = readdirSync(stage.places.blobs).filter((name) => name.endsWith('.blob.data'));
    await stage.mount(other, 'other', '--no-prefetch', '--driver', driver);
    // All of one and a part of the other.
    for (const name of ['m', 'other']) await run('sh', ['-c', `head -c ${MIB} ${stage.scratch.join(name, 'large')}`]);
    const path = join(stage.places.blobs, data);
    const changed = () => {
      const file = openSync(path, 'r+');
      writeSync(file, 'changed', 100);
      closeSync(file);
      // The kernel's clock for files goes in steps of some milliseconds.
      return statSync(path).ctimeMs > statSync(path.replace(/data$/, 'fill')).mtimeMs;
    };
    await until(async () => changed(), { what: 'the file is newer than its journal' });
    await stage.killWorker();
    const lost = /\/m .*lost and mounted afresh/;
    await until(async () => lost.test(await stage.command('mounts', ...stage.options)), { what: 'the mount is lost' });
    expect((await stage.serving())?.guardian).toBe(guardianPid);
    expect(await stage.command('mounts', ...stage.options)).not.toMatch(/\/other .*lost/);
    expect(await readTree(stage.scratch.join('m'))).toEqual(await readTree(image.tree));
    expect(await readTree(stage.scratch.join('other'))).toEqual(await readTree(other.tree));
  });

  test('a full disk is an error for who reads what does not fit, never zeros; with room again all is well', async () => {
    const cache = stage.places.cacheDirectory;
    mkdirSync(cache);
    if (driver === 'fuse') {
      await run('mount', ['-t', 'tmpfs', '-o', 'size=9m', 'tmpfs', cache]);
    } else {
      const file = stage.scratch.join('disk');
      writeFileSync(file, '');
      truncateSync(file, 12 * MIB);
      await run('mkfs.ext4', ['-q', '-F', '-O', '^has_journal', file]);
      await run('mount', ['-o', 'loop', file, cache]);
    }
    const tree = stage.scratch.join('tree');
    mkdirSync(tree);
    for (let at = 0; at < 6; at++) writeFileSync(join(tree, `${at}`), randomBytes(MIB));
    const image = await stage.build(tree, ['--chunk-size', '64KiB']);
    // The driver that the trial chooses: a tmpfs takes no marks.
    expect(await stage.mount(image, 'm', '--no-prefetch')).toMatchObject({ driver });
    const filler = join(cache, 'filler');
    await run('sh', ['-c', `head -c 64M /dev/zero > ${filler}`], { check: false });
    truncateSync(filler, statSync(filler).size - 2 * MIB);
    const read = (name: string) => run('cat', [stage.scratch.join('m', name)], { check: false });
    const digest = (name: string, where: string) => run('sha256sum', [join(where, name)], { check: false });
    const failed: string[] = [];
    for (const name of readdirSync(tree)) {
      const [expected, found] = [await digest(name, tree), await digest(name, stage.scratch.join('m'))];
      if (found.code === 0) expect(found.stdout.slice(0, 64)).toBe(expected.stdout.slice(0, 64));
      else failed.push(found.stderr);
    }
    expect(failed.length).toBeGreaterThan(2);
    for (const message of failed) expect(message).toMatch(/No space left on device|Input\/output error/);
    truncateSync(filler, 0);
    await until(async () => (await read('5')).code === 0, { what: 'there is room again' });
    for (const name of readdirSync(tree)) {
      expect(readFileSync(stage.scratch.join('m', name)).equals(readFileSync(join(tree, name)))).toBe(true);
    }
  });
});
