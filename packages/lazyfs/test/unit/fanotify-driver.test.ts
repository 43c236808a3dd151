import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, cpSync, mkdirSync, mkdtempSync, readlinkSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { silentLogger, sleep } from '@pantala/base';
import { accessEvents, createAccessGroup, markFile, readInto } from '@pantala/linux';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Demand } from '../../src/demand.ts';
import type { ServedBlob } from '../../src/driver.ts';
import { FanotifyDriver } from '../../src/fanotify/driver.ts';
import { mountErofs, unmountErofs } from '../../src/mounting/erofs.ts';
import { PendingTable } from '../../src/pending/pending-table.ts';
import { buildChunkedImage, type ChunkedImage, CopiedBlob } from '../support/chunked-image.ts';

const run = promisify(execFile);

// Readers are processes of their own: the driver lets its own process pass, and starting a program from a mount blocks
// the thread that starts it.
describe.skipIf(process.getuid?.() !== 0)('the fanotify driver on this kernel (as root)', () => {
  let scratch: string;
  let tree: string;
  let target: string;
  let image: ChunkedImage;
  let blob: CopiedBlob;
  let driver: FanotifyDriver;

  const served = (lazy: CopiedBlob): ServedBlob => ({
    id: lazy.id,
    path: lazy.path,
    size: lazy.size,
    open: async () => lazy,
  });

  beforeEach(async () => {
    scratch = mkdtempSync(join(tmpdir(), 'pantala-driver-'));
    tree = join(scratch, 'tree');
    target = join(scratch, 'mnt');
    mkdirSync(join(tree, 'sub'), { recursive: true });
    writeFileSync(join(tree, 'large'), randomBytes(8 * 1024 * 1024 + 17));
    writeFileSync(join(tree, 'sub', 'small'), 'a small file');
    cpSync('/bin/true', join(tree, 'true'));
    image = buildChunkedImage(join(scratch, 'image'), tree);
    blob = new CopiedBlob(image.blob, join(scratch, 'cache'), 'b'.repeat(64));
    driver = new FanotifyDriver({
      group: createAccessGroup(),
      table: new PendingTable(PendingTable.create()),
      demand: new Demand({ logger: silentLogger, deadline: 2000 }),
      logger: silentLogger,
      onFailure: (error) => {
        throw error;
      },
    });
    const { device } = await driver.attach(served(blob));
    driver.start();
    await mountErofs({ bootstrap: image.bootstrap, devices: [device], target, loop: false });
  });

  afterEach(async () => {
    await unmountErofs(target, { detach: true });
    await driver[Symbol.asyncDispose]();
    rmSync(scratch, { recursive: true, force: true });
  });

  test('a program in it runs, its files have the bytes of the tree, and what is read is fetched', async () => {
    await run('sh', ['-c', join(target, 'true')]);
    const fetchedForProgram = blob.fetched.length;
    expect(fetchedForProgram).toBeGreaterThan(0);
    expect(fetchedForProgram).toBeLessThan(8);
    await run('diff', ['-r', tree, target]);
    expect(blob.complete).toBe(true);
    expect(new Set(blob.fetched).size).toBe(blob.fetched.length);
  });

  test('many readers of cold data at once, each chunk fetched once', async () => {
    blob.delay = () => sleep(5);
    const digest = `sha256sum < ${join(target, 'large')}`;
    const results = await Promise.all(Array.from({ length: 64 }, () => run('sh', ['-c', digest])));
    const { stdout } = await run('sh', ['-c', `sha256sum < ${join(tree, 'large')}`]);
    expect(new Set(results.map((result) => result.stdout))).toEqual(new Set([stdout]));
    expect(new Set(blob.fetched).size).toBe(blob.fetched.length);
  });

  test('what is there is let through without asking what fills it, and counted; what is not there is not', async () => {
    driver.opened(blob);
    const whole = join(target, 'large');
    await run('sh', ['-c', `head -c 1000000 ${whole} > /dev/null`]);
    const fetched = blob.fetched.length;
    blob.failure = new Error('nobody may be asked');
    // The cache file itself: the kernel asks before each of its reads, whatever is in memory.
    const read = (path: string, offset: number) =>
      run('dd', [`if=${path}`, 'of=/dev/null', 'bs=4096', 'count=1', `skip=${offset / 4096}`]);
    const there = 65_536 * (blob.fetched[0] ?? 0);
    await read(blob.path, there);
    await expect.poll(() => blob.hits, { timeout: 5000 }).toBeGreaterThan(0);
    expect(blob.fetched.length).toBe(fetched);
    await expect(read(blob.path, blob.nextMissing(0) as number)).rejects.toThrow(/Input\/output error/);
  });

  test('what cannot be had is an error for the reader, and may be there the next time', async () => {
    blob.failure = new Error('the registry is gone');
    await expect(run('cat', [join(target, 'sub', 'small')])).rejects.toThrow(/Input\/output error/);
    blob.failure = undefined;
    const content = () => run('cat', [join(target, 'sub', 'small')]).then(({ stdout }) => stdout, String);
    await expect.poll(content, { timeout: 5000 }).toBe('a small file');
  });

  test('what comes too late is an error for the reader', async () => {
    blob.delay = () => sleep(60_000);
    const began = performance.now();
    await expect(run('cat', [join(target, 'sub', 'small')])).rejects.toThrow(/Input\/output error/);
    expect(performance.now() - began).toBeLessThan(10_000);
  });

  test('an event of a reader that died with the last worker does not take the answer to another of its number', async () => {
    const group = createAccessGroup();
    const table = new PendingTable(PendingTable.create());
    const other = new CopiedBlob(image.blob, join(scratch, 'other'), 'c'.repeat(64));
    markFile(group, other.path);
    const victim = spawn('cat', [other.path], { stdio: 'ignore' });
    const intake = table.intakeOf(0);
    await expect.poll(() => readInto(group, intake), { timeout: 5000 }).toBeGreaterThan(0);
    const number = accessEvents(intake).next().value?.fd as number;
    victim.kill('SIGKILL');
    await once(victim, 'exit');
    await using next = new FanotifyDriver({
      group,
      table,
      demand: new Demand({ logger: silentLogger }),
      logger: silentLogger,
      onFailure: (error) => {
        throw error;
      },
    });
    await next.attach(served(other));
    next.start();
    // Its threads have the descriptors that they need.
    await run('head', ['-c', '1', other.path]);
    // So many at once that one of them gets the number; nothing is answered before one has it.
    const gate = Promise.withResolvers<void>();
    other.delay = () => gate.promise;
    const reads =
      'read go; for at in $(seq 0 47); do dd if="$1" of=/dev/null bs=65536 skip=$at count=1 status=none & done; wait';
    const readers = spawn('timeout', ['20', 'sh', '-c', reads, 'sh', other.path], {
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    const exited = once(readers, 'exit');
    closeSync(number);
    readers.stdin.end('go\n');
    await expect.poll(() => pathOf(number), { timeout: 5000 }).toBe(realpathSync(other.path));
    gate.resolve();
    expect(await exited).toEqual([0, null]);
  });
});

/** What a descriptor of this process is open on; undefined when it is none. */
function pathOf(fd: number): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return undefined;
  }
}
