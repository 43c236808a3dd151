import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { installed, Program, pantala, pantalaCommand, ROOT, readTree, run, until } from '@pantala/testkit';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Container, unifiedRoot } from '../lib/container.ts';
import { type BuiltImage, LazyStage } from '../lib/lazy-stage.ts';
import { RuncContainer } from '../lib/runc-container.ts';
import { FULL, MIB } from '../lib/stage.ts';

const cgroups = process.getuid?.() === 0 ? await unifiedRoot() : undefined;
const FILES = 4;

/** What the quick set leaves out. */
const testInFull = FULL ? test : undefined;

describe.skipIf(cgroups === undefined)('a worker in a container (as root)', () => {
  let stage: LazyStage;
  let image: BuiltImage;
  let socket: string;
  let container: Container | undefined;
  let real: RuncContainer | undefined;
  let guardian: Program | undefined;

  beforeEach(async () => {
    // Commands run in the container once there is one.
    const wrap = (command: string, args: readonly string[]): readonly [string, readonly string[]] =>
      (container ?? real)?.wrap(command, args) ?? [command, args];
    stage = new LazyStage({ address: '', localhost: '', wrap });
    socket = stage.scratch.join('guardian', 'guardian.sock');
    image = await build('tree', 2 * MIB);
    // What is mounted below it in a container is seen here, as with a bind mount that is rshared.
    const shared = stage.scratch.join('shared');
    mkdirSync(shared);
    await run('mount', ['--bind', shared, shared]);
    await run('mount', ['--make-rshared', shared]);
  });

  afterEach(async () => {
    await container?.[Symbol.asyncDispose]();
    container = undefined;
    await real?.[Symbol.asyncDispose]();
    real = undefined;
    await guardian?.kill();
    guardian = undefined;
    await stage[Symbol.asyncDispose]();
  });

  async function build(name: string, length: number): Promise<BuiltImage> {
    const tree = stage.scratch.join(name);
    mkdirSync(tree);
    for (let file = 0; file < FILES; file++) writeFileSync(join(tree, `${file}`), randomBytes(length + file * 1000));
    return stage.build(tree, ['--chunk-size', '128KiB']);
  }

  async function startGuardian(): Promise<Program> {
    guardian = await pantala(['guardian', '--socket', socket, '--json'], { ready: /"ready":true/ });
    return guardian;
  }

  async function startContainer(...options: readonly string[]): Promise<Container> {
    container = await Container.start({
      name: 'lazy',
      cgroups: cgroups ?? '',
      command: pantalaCommand('worker', ...stage.options, '--json', ...options),
      ready: /"ready":true/,
    });
    return container;
  }

  async function killContainer(): Promise<void> {
    const before = container;
    container = undefined;
    await before?.[Symbol.asyncDispose]();
  }

  /** Starts a reader of a file that nobody has read, and waits until the kernel makes it wait. */
  async function waitingReader(file: number): Promise<Program> {
    const reader = await Program.start('sha256sum', [stage.scratch.join('shared', 'a', `${file}`)]);
    await until(() => blockedIn(reader.pid).includes('fanotify'), { what: 'the reader waits' });
    return reader;
  }

  async function expectRight(reader: Program, file: number): Promise<void> {
    expect((await reader.exited).code).toBe(0);
    const { stdout } = await run('sha256sum', [join(image.tree, `${file}`)]);
    expect(reader.stdout.slice(0, 64)).toBe(stdout.slice(0, 64));
  }

  test('its readers wait while the whole container is gone, and while the guardian of the host is gone nothing is', async () => {
    const first = await startGuardian();
    await startContainer('--guardian', socket);
    const line = await stage.mount(image, 'shared/a', '--no-prefetch');
    // Without being told: the trial and the guardian decide.
    expect(line).toMatchObject({ driver: 'fanotify', guardianPid: first.pid });
    expect(readlinkSync(`/proc/${container?.init}/ns/pid`)).not.toBe(readlinkSync('/proc/self/ns/pid'));
    expect(container?.processes).not.toContain(first.pid);
    expect(readFileSync(`/proc/${first.pid}/cgroup`, 'utf8')).toMatch(/^0::\/.*pantala-guardian$/m);
    // These read another image, of which they have soon read everything, again and again.
    const other = await build('other', 4 * MIB);
    await stage.mount(other, 'shared/b', '--no-prefetch');
    const readers = await stage.compare(other, 'shared/b', 8, 3600);

    await killContainer();
    const waiting = await waitingReader(0);
    await startContainer('--guardian', socket);
    await expectRight(waiting, 0);
    expect(await stage.command('mounts', ...stage.options)).toMatch(/shared\/a +fanotify +lazy *$/m);

    // The guardian dies; the worker holds alone, says so, and hands over when there is one again.
    await first.kill();
    await expect.poll(async () => (await stage.serving())?.guardian).toBe(0);
    expect(await doctor()).toContain(`no guardian on ${socket}`);
    await expectRight(await Program.start('sha256sum', [stage.scratch.join('shared', 'a', '1')]), 1);
    const second = await startGuardian();
    await expect.poll(async () => (await stage.serving())?.guardian).toBe(second.pid);

    await killContainer();
    const again = await waitingReader(2);
    await startContainer('--guardian', socket);
    await expectRight(again, 2);

    readers.signal('SIGTERM');
    expect(await stage.compared(readers)).toMatchObject({ errors: [], wrong: [] });
    expect(await stage.command('mounts', ...stage.options)).not.toMatch(/lost/);
    expect(await readTree(stage.scratch.join('shared/a'))).toEqual(await readTree(image.tree));

    // What is unmounted there is unmounted here; and a guardian that holds nothing may go.
    await stage.umount('shared/a');
    expect(existsSync(stage.scratch.join('shared/a/0'))).toBe(false);
    process.kill(container?.init ?? 0, 'SIGTERM');
    expect((await container?.program.exited)?.code).toBe(0);
    await expect.poll(() => second.stderr).toMatch(/worker has gone/);
    expect(await second.stop()).toEqual({ code: 0, signal: null });
  });

  testInFull?.('a guardian that is the last holder does not let go when it is asked to', async () => {
    const { pid } = await startGuardian();
    await startContainer('--guardian', socket);
    await stage.mount(image, 'shared/a', '--no-prefetch');
    await killContainer();
    const waiting = await waitingReader(3);
    process.kill(pid, 'SIGTERM');
    await expect.poll(() => guardian?.stderr).toMatch(/last holder/);
    expect(waiting.running).toBe(true);
    await startContainer('--guardian', socket);
    await expectRight(waiting, 3);
  });

  testInFull?.('one guardian holds for one worker', async () => {
    await startGuardian();
    await startContainer('--guardian', socket);
    const other = stage.scratch.join('other');
    const args = ['worker', '--guardian', socket, '--state-dir', other, '--cache-dir', other];
    const second = await pantala(args);
    expect((await second.exited).code).toBe(73);
    expect(second.stderr).toContain('holds for another worker');
  });

  testInFull?.skipIf(!installed('runc'))(
    'as containerd has it made, with no capability but CAP_SYS_ADMIN',
    async () => {
      await startGuardian();
      const start = async () => {
        real = await RuncContainer.start({
          name: 'lazy',
          folder: stage.scratch.path,
          command: pantalaCommand('worker', ...stage.options, '--json', '--guardian', socket),
          ready: /"ready":true/,
          directories: [ROOT, stage.scratch.path],
          shared: stage.scratch.join('shared'),
        });
      };
      await start();
      const line = await stage.mount(image, 'shared/a', '--no-prefetch');
      expect(line).toMatchObject({ driver: 'fanotify', guardianPid: guardian?.pid });
      await expectRight(await Program.start('sha256sum', [stage.scratch.join('shared', 'a', '0')]), 0);
      await real?.[Symbol.asyncDispose]();
      real = undefined;
      const waiting = await waitingReader(1);
      await start();
      await expectRight(waiting, 1);
      expect(await stage.command('mounts', ...stage.options)).not.toMatch(/lost/);
      await stage.umount('shared/a');
      expect(existsSync(stage.scratch.join('shared/a/0'))).toBe(false);
    },
  );

  test('without a guardian of the host it gets FUSE, whose readers get an error when it is gone', async () => {
    await startContainer();
    expect(await stage.mount(image, 'shared/a', '--no-prefetch')).toMatchObject({ driver: 'fuse' });
    expect(await doctor()).toContain('a PID namespace of its own, and no guardian of the host');
    await expectRight(await Program.start('sha256sum', [stage.scratch.join('shared', 'a', '0')]), 0);
    await killContainer();
    const { code, stderr } = await run('cat', [stage.scratch.join('shared', 'a', '1')], { check: false });
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/Input\/output error|not connected|aborted/);
  });

  async function doctor(): Promise<string> {
    const program = await pantala(['doctor', ...stage.options], {
      place: { address: '', localhost: '', wrap: (command, args) => container?.wrap(command, args) ?? [command, args] },
    });
    await program.exited;
    return program.stdout + program.stderr;
  }
});

describe.skipIf(cgroups === undefined)('what the OOM killer takes (as root)', () => {
  /** CAP_SYS_RESOURCE (linux/capability.h): without it no process can be spared. */
  const maySpare = ((capabilities() >> 24n) & 1n) === 1n;

  test('the worker before the guardian, also before one that a worker has started that offered itself already', async () => {
    await using stage = new LazyStage();
    const nothing = stage.scratch.join('nothing');
    mkdirSync(nothing);
    const { workerPid } = await stage.mount(await stage.build(nothing), 'm');
    for (const kill of [false, true]) {
      const guardian = kill ? await stage.killGuardian() : ((await stage.serving())?.guardian ?? 0);
      expect({ guardian: oomScoreOf(guardian), worker: oomScoreOf(workerPid) }).toEqual(
        maySpare ? { guardian: -1000, worker: 0 } : { guardian: 0, worker: 500 },
      );
    }
    const next = await stage.killWorker();
    expect(oomScoreOf(next)).toBe(maySpare ? 0 : 500);
    const advice = expect.stringContaining('give the worker CAP_SYS_RESOURCE') as string;
    const report = await pantala(['doctor', ...stage.options]);
    await report.exited;
    if (maySpare) expect(report.stdout).not.toEqual(advice);
    else expect(report.stdout).toEqual(advice);
  });
});

function oomScoreOf(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/oom_score_adj`, 'utf8'));
}

/** Those that this process has. */
function capabilities(): bigint {
  return BigInt(`0x${/^CapEff:\s+([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'}`);
}

/** Functions of the kernel in which a process waits; empty when it does not. */
function blockedIn(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/stack`, 'utf8');
  } catch {
    return '';
  }
}
