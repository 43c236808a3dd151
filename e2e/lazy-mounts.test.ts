import { randomBytes } from 'node:crypto';
import { chmodSync, closeSync, copyFileSync, mkdirSync, openSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { makeCorpus, readTree, run } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type BuiltImage, DRIVERS, LazyStage } from './lib/lazy-stage.ts';
import { FULL, MIB } from './lib/stage.ts';

/** Small files of one image. */
const MANY = FULL ? 100_000 : 2000;

const root = process.getuid?.() === 0;

describe.skipIf(!root).each(DRIVERS)('lazy mounts with $driver $options (as root)', ({ driver, options }) => {
  let stage: LazyStage;
  let image: BuiltImage;

  beforeAll(async () => {
    stage = new LazyStage();
    const tree = stage.scratch.join('tree');
    mkdirSync(tree);
    await makeCorpus(join(tree, 'corpus'));
    writeFileSync(join(tree, 'large'), randomBytes(9 * MIB + 1234));
    writeFileSync(join(tree, 'holes'), Buffer.concat([Buffer.alloc(3 * MIB), randomBytes(100), Buffer.alloc(MIB)]));
    copyFileSync('/bin/sh', join(tree, 'sh'));
    chmodSync(join(tree, 'sh'), 0o755);
    image = await stage.build(tree);
  });

  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
  });

  test('a mount is there at once, says so in one line, runs programs, and has the tree', async () => {
    const line = await stage.mount(image, 'a', '--no-prefetch', ...options);
    expect(Object.keys(line)).toEqual(['mounted', 'driver', 'workerPid', 'guardianPid', 'api']);
    expect(line).toMatchObject({ mounted: stage.scratch.join('a'), driver, api: stage.places.api });
    expect(await stage.mounts()).toEqual([line]);
    const { stdout } = await run('sh', ['-c', `${stage.scratch.join('a', 'sh')} -c 'echo from a lazy mount'`]);
    expect(stdout).toBe('from a lazy mount\n');
    const [expected, found] = [await readTree(image.tree), await readTree(stage.scratch.join('a'))];
    expect(found).toEqual(expected);
    await stage.umount('a');
    expect(await stage.mounts()).toEqual([]);
  });

  test('64 readers of cold data, each in an order of its own, see the bytes of the tree', async () => {
    const other = await stage.build(image.tree, ['--chunk-size', '64KiB', '--compressor', 'lz4_block']);
    await stage.mount(other, 'b', '--no-prefetch', ...options);
    const found = await stage.compared(await stage.compare(other, 'b', 64, 0));
    expect(found).toMatchObject({ errors: [], wrong: [] });
    expect(found.reads).toBeGreaterThan(64 * 10);
    await stage.umount('b');
  });

  test('prefetching makes it complete, and it stays when the service ends', async () => {
    const third = await stage.build(image.tree, ['--chunk-size', '128KiB']);
    const line = await stage.mount(third, 'c', '--no-prefetch', ...options);
    await stage.command('prefetch', ...stage.options, stage.scratch.join('c'));
    expect(await stage.command('mounts', ...stage.options)).toMatch(/c .*complete/);
    if (driver === 'fanotify') {
      process.kill(line.workerPid, 'SIGTERM');
      await expect.poll(() => stage.serving(), { timeout: 20_000 }).toBeUndefined();
      expect(await readTree(stage.scratch.join('c'))).toEqual(await readTree(image.tree));
    }
  });

  test(`a file of ${FULL ? '4 GiB' : '96 MiB'} is read at its ends, and ${MANY} small ones are listed and read`, async () => {
    const tree = stage.scratch.join('many');
    for (let folder = 0; folder < MANY / 500; folder++) {
      mkdirSync(join(tree, `${folder}`), { recursive: true });
      for (let file = 0; file < 500; file++) writeFileSync(join(tree, `${folder}`, `${file}`), `${folder} ${file}\n`);
    }
    // Holes, with bytes at both ends and around the middle.
    const size = FULL ? 4096 * MIB : 96 * MIB;
    const file = openSync(join(tree, 'large'), 'w');
    for (const at of [0, size / 2 - 100_000, size - 300_000]) writeSync(file, randomBytes(300_000), 0, 300_000, at);
    closeSync(file);
    const many = await stage.build(tree);
    await stage.mount(many, 'm', '--no-prefetch', ...options);
    for (const skip of [0, size / 2 - 200_000, size - 500_000]) {
      const range = `tail -c +${skip + 1} large | head -c 500000 | sha256sum`;
      const [expected, found] = [tree, stage.scratch.join('m')].map((cwd) => run('sh', ['-c', range], { cwd }));
      expect((await found)?.stdout).toBe((await expected)?.stdout);
    }
    const names = (cwd: string) =>
      run('sh', ['-c', 'find . | LC_ALL=C sort | sha256sum; cat [0-9]*/* | sha256sum'], { cwd });
    expect((await names(stage.scratch.join('m'))).stdout).toBe((await names(tree)).stdout);
    await stage.umount('m');
  });

  test('a bootstrap with another digest, or none at all, is refused, and nothing stays', async () => {
    const wrong = ['--bootstrap-digest', 'a'.repeat(64)];
    await expect(stage.mount(image, 'w', ...wrong, ...options)).rejects.toThrow(/status 76\n.*it should have aaaa/s);
    const none = { ...image, bootstrap: join(image.tree, 'sh') };
    await expect(stage.mount(none, 'w', ...options)).rejects.toThrow(/status 7[68]|status 64/);
    expect((await stage.mounts()).map(({ mounted }) => mounted)).not.toContain(stage.scratch.join('w'));
  });
});
