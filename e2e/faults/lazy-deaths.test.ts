import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { sleep } from '@pantala/base';
import type { MountLine } from '@pantala/lazyfs';
import { Registry as RegistryClient } from '@pantala/oci';
import { loopbackPlace, Program, Registry, readTree, run, until } from '@pantala/testkit';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type BuiltImage, DRIVERS, LazyStage } from '../lib/lazy-stage.ts';
import { FULL, MIB } from '../lib/stage.ts';

const root = process.getuid?.() === 0;
const WORKER_KILLS = FULL ? 200 : 12;
const GUARDIAN_KILLS = FULL ? 50 : 5;
const READERS = FULL ? 100 : 24;

/** Where control groups can be ended as a whole (cgroup.kill of version 2). */
const UNIFIED = ['/sys/fs/cgroup/unified', '/sys/fs/cgroup'].find((path) => existsSync(join(path, 'cgroup.procs')));

describe.skipIf(!root).each(DRIVERS)('deaths with $driver $options (as root)', ({ driver, options }) => {
  let stage: LazyStage;
  let image: BuiltImage;

  beforeEach(async () => {
    stage = new LazyStage();
    const tree = stage.scratch.join('tree');
    mkdirSync(join(tree, 'small'), { recursive: true });
    for (let file = 0; file < 12; file++)
      writeFileSync(join(tree, `large-${file}`), randomBytes(8 * MIB + file * 1000));
    for (let file = 0; file < 400; file++) writeFileSync(join(tree, 'small', `${file}`), randomBytes(100 + file * 37));
    image = await stage.build(tree, ['--chunk-size', '128KiB']);
  });

  afterEach(async () => {
    await stage[Symbol.asyncDispose]();
  });

  test(`the worker is killed ${WORKER_KILLS} times while ${READERS} readers read`, async () => {
    await stage.mount(image, 'a', '--no-prefetch', ...options);
    const readers = await stage.compare(image, 'a', READERS, 3600);
    const pids = new Set<number>();
    for (let kill = 0; kill < WORKER_KILLS; kill++) {
      pids.add(await stage.killWorker());
      // At any moment: while it starts, while it opens images, while it serves.
      await sleep(Math.random() * 700);
    }
    expect(pids.size).toBe(WORKER_KILLS);
    readers.signal('SIGTERM');
    const found = await stage.compared(readers);
    expect(found).toMatchObject({ errors: [], wrong: [] });
    expect(found.reads).toBeGreaterThan(READERS * 5);
  });

  test(`the guardian is killed ${GUARDIAN_KILLS} times, each time followed by the worker`, async () => {
    await stage.mount(image, 'b', '--no-prefetch', ...options);
    const readers = await stage.compare(image, 'b', READERS, 3600);
    const guardians = new Set<number>();
    for (let kill = 0; kill < GUARDIAN_KILLS; kill++) {
      guardians.add(await stage.killGuardian());
      await stage.killWorker();
    }
    expect(guardians.size).toBe(GUARDIAN_KILLS);
    readers.signal('SIGTERM');
    expect(await stage.compared(readers)).toMatchObject({ errors: [], wrong: [] });
  });

  test(`the worker is upgraded three times while ${READERS} readers read`, async () => {
    const { guardianPid } = await stage.mount(image, 'u', '--no-prefetch', ...options);
    const readers = await stage.compare(image, 'u', READERS, 3600);
    const pids = new Set<number>();
    for (let upgrade = 0; upgrade < 3; upgrade++) {
      const [line] = JSON.parse(await stage.command('mounts', '--upgrade', ...stage.options, '--json')) as MountLine[];
      expect(line?.guardianPid).toBe(guardianPid);
      pids.add(line?.workerPid ?? 0);
    }
    expect(pids.size).toBe(3);
    // The guardian starts the new version when it dies.
    pids.add(await stage.killWorker());
    expect(pids.size).toBe(4);
    readers.signal('SIGTERM');
    expect(await stage.compared(readers)).toMatchObject({ errors: [], wrong: [] });
  });

  test.skipIf(UNIFIED === undefined)('the whole control group of the worker is killed', async () => {
    const group = join(UNIFIED as string, `pantala-test-${process.pid}`);
    mkdirSync(group);
    try {
      const procs = join(group, 'cgroup.procs');
      const before = readFileSync('/proc/self/cgroup', 'utf8').match(/^0::(.*)$/m)?.[1] ?? '/';
      writeFileSync(procs, String(process.pid));
      const line = await stage.mount(image, 'c', '--no-prefetch', ...options).finally(() => {
        writeFileSync(join(UNIFIED as string, before, 'cgroup.procs'), String(process.pid));
      });
      expect(readFileSync(procs, 'utf8').split('\n')).toContain(String(line.workerPid));
      expect(readFileSync(procs, 'utf8').split('\n')).not.toContain(String(line.guardianPid));
      const readers = await stage.compare(image, 'c', READERS, 3600);
      for (let kill = 0; kill < 3; kill++) {
        const { pid } = await until(() => stage.serving(), { what: 'a worker serves' });
        writeFileSync(join(group, 'cgroup.kill'), '1');
        const next = await until(
          async () => {
            const found = await stage.serving();
            return found !== undefined && found.pid !== pid ? found : undefined;
          },
          { what: 'another worker serves' },
        );
        expect(next.guardian).toBe(line.guardianPid);
        expect(readFileSync(procs, 'utf8').split('\n')).toContain(String(next.pid));
      }
      readers.signal('SIGTERM');
      expect(await stage.compared(readers)).toMatchObject({ errors: [], wrong: [] });
    } finally {
      await stage[Symbol.asyncDispose]();
      await expect.poll(() => attempt(() => rmdirSync(group)), { timeout: 10_000 }).toBe(true);
      stage = new LazyStage();
    }
  });

  test('everything is killed at once, then started again: no mount goes on with what it had in memory', async () => {
    await stage.mount(image, 'd', '--no-prefetch', ...options);
    // In one place only: a mount of which everything is there has nothing to lose.
    await run('sh', ['-c', `head -c 100 $(ls ${stage.scratch.join('d')}/large-* | head -n 1)`]);
    await stage.killEverything();
    // What is read now may be holes; it must not be seen again.
    await run('sh', ['-c', `cat ${stage.scratch.join('d')}/large-* > /dev/null`], { check: false });
    const other = await stage.build(image.tree, ['--chunk-size', '256KiB']);
    await stage.mount(other, 'e', '--no-prefetch', ...options);
    expect((await stage.mounts()).map(({ mounted }) => mounted)).toEqual([
      stage.scratch.join('d'),
      stage.scratch.join('e'),
    ]);
    expect(await stage.command('mounts', ...stage.options)).toMatch(/d .*lost and mounted afresh/);
    expect(await readTree(stage.scratch.join('d'))).toEqual(await readTree(image.tree));
  });

  test('an orderly stop takes away what nobody uses, and never lets anybody read holes', async () => {
    const unused = await stage.mount(image, 'f', '--no-prefetch', ...options);
    const other = await stage.build(image.tree, ['--chunk-size', '512KiB']);
    await stage.mount(other, 'g', '--no-prefetch', ...options);
    // Its working directory lies in it.
    await using user = await Program.start('sleep', ['600'], { cwd: stage.scratch.join('g') });
    const readers = await stage.compare(other, 'g', 4, 3600);
    process.kill(unused.workerPid, 'SIGTERM');
    await expect.poll(() => readdirSync(stage.scratch.join('f')), { timeout: 30_000 }).toEqual([]);
    // What fanotify fills is completed first; what comes through FUSE cannot do without a worker, who stays.
    const goes = driver === 'fanotify';
    if (goes) await expect.poll(() => stage.serving(), { timeout: 60_000 }).toBeUndefined();
    else await expect.poll(() => stage.log(), { timeout: 30_000 }).toMatch(/cannot do without a worker/);
    readers.signal('SIGTERM');
    expect(await stage.compared(readers)).toMatchObject({ errors: [], wrong: [] });
    expect(await readTree(stage.scratch.join('g'))).toEqual(await readTree(other.tree));
    await user.kill();
  });
});

describe.skipIf(!root)('what a killed worker had fetched (as root)', () => {
  let registry: Registry;
  let stage: LazyStage;

  beforeAll(async () => {
    registry = await Registry.start({ place: loopbackPlace() });
    stage = new LazyStage();
  });

  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
    await registry[Symbol.asyncDispose]();
  });

  test('is not fetched again, but for what was under way', async () => {
    const tree = stage.scratch.join('tree');
    mkdirSync(tree);
    for (let file = 0; file < 8; file++) writeFileSync(join(tree, `${file}`), randomBytes(4 * MIB));
    const image = await stage.build(tree, ['--chunk-size', '128KiB', '--compressor', 'none']);
    const [id] = readdirSync(image.blobs);
    const blob = join(image.blobs, id as string);
    const repository = new RegistryClient(registry.url).repository('lazy/image');
    const content = readFileSync(blob);
    await repository.putBlob({ digest: `sha256:${id}`, size: statSync(blob).size, open: () => [content] });
    // The worker is started by a mount of nothing much.
    const nothing = stage.scratch.join('nothing');
    mkdirSync(nothing);
    await stage.mount(await stage.build(nothing), 'n', '--no-prefetch');
    await stage.worker.call('POST', '/pantala/v1/mounts', {
      target: stage.scratch.join('r'),
      bootstrap: image.bootstrap,
      sources: { kind: 'registry', registry: { registry: registry.url, repository: 'lazy/image' } },
      prefetch: { enabled: false },
      pieceLength: 0,
    });
    const readers = await stage.compare(image, 'r', 16, 0);
    let kills = 0;
    while (readers.running && kills < 10) {
      await stage.killWorker();
      kills++;
    }
    const found = await stage.compared(readers);
    expect(found).toMatchObject({ errors: [], wrong: [] });
    const given = registry.accesses().filter(({ path }) => path.includes(id as string));
    const sum = given.reduce((total, { bytes }) => total + bytes, 0);
    // Under way: what 16 readers wait for at each kill, read ahead by the kernel.
    expect(sum).toBeLessThanOrEqual(content.length + kills * 16 * 256 * 1024);
  });
});

test.skipIf(!root).each([
  ['state directory is', false],
  ['state directory and cache are', true],
])('a worker whose %s gone ends with its guardian once nothing is mounted (as root)', async (_, cacheToo) => {
  await using stage = new LazyStage();
  const tree = stage.scratch.join('tree');
  mkdirSync(tree);
  writeFileSync(join(tree, 'file'), 'a file\n');
  const { workerPid, guardianPid } = await stage.mount(await stage.build(tree), 'm', '--no-prefetch');
  rmSync(stage.places.stateDirectory, { recursive: true });
  const isThere = (pid: number): boolean => attempt(() => process.kill(pid, 0));
  expect(readFileSync(stage.scratch.join('m', 'file'), 'utf8')).toBe('a file\n');
  const standby = () => readFileSync(`/proc/${guardianPid}/task/${guardianPid}/children`, 'utf8');
  await until(async () => standby() !== '', { what: 'the guardian, which cannot log any more, has a standby' });
  expect([workerPid, guardianPid].map(isThere)).toEqual([true, true]);
  if (cacheToo) rmSync(stage.places.cacheDirectory, { recursive: true });
  await run('umount', [stage.scratch.join('m')]);
  await until(async () => !isThere(workerPid) && !isThere(guardianPid), { what: 'both are gone' });
});

test.skipIf(!root)(
  'a worker that dies when its state directory is gone is followed by one of the same guardian (as root)',
  async () => {
    await using stage = new LazyStage();
    const tree = stage.scratch.join('tree');
    mkdirSync(tree);
    writeFileSync(join(tree, 'file'), randomBytes(MIB));
    const before = await stage.mount(await stage.build(tree), 'm', '--no-prefetch', '--driver', 'fanotify');
    rmSync(stage.places.stateDirectory, { recursive: true });
    process.kill(before.workerPid, 'SIGKILL');
    const next = await until(() => stage.serving(), { what: 'another worker serves' });
    expect(next.guardian).toBe(before.guardianPid);
    // Nobody knows the mount any more: an error, never zeros.
    const { code, stderr } = await run('cat', [stage.scratch.join('m', 'file')], { check: false });
    expect([code, stderr]).toEqual([1, expect.stringContaining('Input/output error')]);
    rmSync(stage.places.stateDirectory, { recursive: true });
    await run('umount', [stage.scratch.join('m')]);
    const isThere = (pid: number): boolean => attempt(() => process.kill(pid, 0));
    await until(async () => !isThere(next.pid) && !isThere(next.guardian), { what: 'both are gone' });
  },
);

function attempt(work: () => void): boolean {
  try {
    work();
    return true;
  } catch {
    return false;
  }
}
