import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Program, pantalaCommand, ROOT, run, Systemd, until } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type BuiltImage, LazyStage } from '../lib/lazy-stage.ts';
import { MIB } from '../lib/stage.ts';

const FILES = 4;

/** The units that users are given, with this checkout and these options in place of theirs. */
function unit(name: string, options = ''): string {
  const text = readFileSync(join(ROOT, 'docs', 'systemd', name), 'utf8');
  return text
    .replace(/^ExecStart=\S+/m, `ExecStart=${pantalaCommand().join(' ')}`)
    .replaceAll('$PANTALA_WORKER_OPTIONS', options);
}

describe.skipIf(process.getuid?.() !== 0)("systemd's descriptor store (as root)", () => {
  let stage: LazyStage;
  let image: BuiltImage;
  let systemd: Systemd;

  beforeAll(async () => {
    stage = new LazyStage({
      address: '',
      localhost: '',
      wrap: (command, args) => systemd?.wrap(command, args) ?? [command, args],
    });
    const tree = stage.scratch.join('tree');
    mkdirSync(tree);
    for (let file = 0; file < FILES; file++) writeFileSync(join(tree, `${file}`), randomBytes(2 * MIB + file * 1000));
    image = await stage.build(tree, ['--chunk-size', '128KiB']);
    systemd = await Systemd.start({
      'pantala-worker.service': unit('pantala-worker.service', stage.options.join(' ')),
      'pantala-guardian.service': unit('pantala-guardian.service'),
    });
  });
  afterAll(async () => {
    await systemd[Symbol.asyncDispose]();
    await stage[Symbol.asyncDispose]();
  });

  const mainPid = async (name: string) => Number(await systemd.run('systemctl', ['show', '-P', 'MainPID', name]));
  const killAll = (...pids: readonly number[]) => systemd.run('kill', ['-9', ...pids.map(String)]);

  /** Reads a file of a mount where systemd is, and compares. */
  async function expectRight(name: string, file: number): Promise<void> {
    const printed = await systemd.run('sha256sum', [stage.scratch.join(name, `${file}`)]);
    const { stdout } = await run('sha256sum', [join(image.tree, `${file}`)]);
    expect(printed.slice(0, 64)).toBe(stdout.slice(0, 64));
  }

  const isLost = async () => /lost/.test(await stage.command('mounts', ...stage.options));

  test('the worker as a unit: it and its guardian are killed together, and the next one gets everything back', async () => {
    await systemd.run('systemctl', ['start', 'pantala-worker']);
    const { workerPid, guardianPid, driver } = await stage.mount(image, 'w', '--driver', 'fanotify', '--no-prefetch');
    expect({ driver, workerPid }).toEqual({ driver: 'fanotify', workerPid: await mainPid('pantala-worker') });
    await expectRight('w', 0);
    await killAll(workerPid, guardianPid);
    // Nobody but systemd holds back this reader.
    await expectRight('w', 1);
    expect(await mainPid('pantala-worker')).not.toBe(workerPid);
    expect(await isLost()).toBe(false);

    // An upgrade: the old one gives way, the mount stays.
    await systemd.run('systemctl', ['restart', 'pantala-worker']);
    await expectRight('w', 2);
    expect(await isLost()).toBe(false);
    await stage.umount('w');
    await systemd.run('systemctl', ['stop', 'pantala-worker']);
  });

  test('a guardian of the host as a unit: it and the worker are killed together', async () => {
    await systemd.run('systemctl', ['start', 'pantala-guardian']);
    const command = pantalaCommand('worker', ...stage.options, '--guardian', '/run/pantala/guardian/guardian.sock');
    const startWorker = async () => {
      const [node, ...args] = systemd.wrap(command[0], command.slice(1)).flat();
      return Program.start(node ?? '', args, { name: 'worker', ready: /worker serves/ });
    };
    // Not disposed of: what ends is nsenter, and the worker with its namespace.
    const first = await startWorker();
    const line = await stage.mount(image, 'g', '--driver', 'fanotify', '--no-prefetch');
    const before = await mainPid('pantala-guardian');
    expect(line.guardianPid).toBe(before);
    await killAll(line.workerPid, before);
    await first.exited;
    await until(async () => ![0, before].includes(await mainPid('pantala-guardian')), { what: 'it is started again' });
    const second = await startWorker();
    await expectRight('g', 3);
    expect(await isLost()).toBe(false);
    await stage.umount('g');
    await killAll((await stage.serving())?.pid ?? 0);
    await second.exited;
  });
});
