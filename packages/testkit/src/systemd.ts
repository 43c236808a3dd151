import { mkdirSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { join } from 'node:path';
import { PantalaError } from '@pantala/base';
import { Program, run } from './program.ts';
import { until } from './wait.ts';

/** A unit that does nothing. */
const TARGET = '[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n';
/** What units need that say nothing of it (DefaultDependencies= of systemd.unit(5)). */
const TARGETS = ['default', 'sysinit', 'basic', 'shutdown', 'multi-user'].map((name) => `${name}.target`);
/**
 * Where a machine's own units and what makes more of them lie (systemd.unit(5), systemd.generator(7)). They must not be
 * there: the file system is the real one, and what belongs to a start of the machine empties /tmp, among other things.
 */
const HIDDEN = ['system', 'system-generators'].flatMap((name) =>
  ['/etc/systemd', '/usr/local/lib/systemd', '/usr/lib/systemd', '/lib/systemd'].map((folder) => `${folder}/${name}`),
);

/**
 * A systemd of its own, in namespaces of its own: `systemctl` there reaches it and nothing else. The file system and
 * the network are the machine's, but for /run and the folder of units.
 */
export class Systemd implements AsyncDisposable {
  readonly #program: Program;
  readonly #cgroup: string;
  /** The process that is number 1 there. */
  #init = 0;

  private constructor(program: Program, cgroup: string) {
    this.#program = program;
    this.#cgroup = cgroup;
  }

  /** @param units texts of unit files by their names: no others are there */
  static async start(units: Readonly<Record<string, string>>): Promise<Systemd> {
    const mounts = await run('findmnt', ['-nt', 'cgroup2', '-o', 'TARGET']);
    const root = mounts.stdout.split('\n')[0] ?? '';
    if (root === '') throw new PantalaError('failed-precondition', 'systemd needs a cgroup2 file system');
    const cgroup = join(root, `pantala-systemd-${process.pid}`);
    mkdirSync(cgroup);
    const files = Object.entries({ ...Object.fromEntries(TARGETS.map((name) => [name, TARGET])), ...units });
    const inside = [
      'mount --make-rprivate /',
      'mount -t tmpfs tmpfs /run',
      'mkdir -p /run/systemd /run/lock',
      'mount -t cgroup2 cgroup2 /sys/fs/cgroup',
      ...HIDDEN.map((folder) => `if [ -d ${folder} ]; then mount -t tmpfs tmpfs ${folder}; fi`),
      ...files.map(([name, text]) => `printf %s ${quoted(text)} > /etc/systemd/system/${name}`),
      'export container=lxc',
      'exec /lib/systemd/systemd --system --unit=default.target --log-target=console --show-status=0',
    ].join('\n');
    const namespaces = ['--pid', '--fork', '--kill-child', '--mount', '--mount-proc', '--cgroup', '--ipc'];
    const outside = [
      `echo $$ > ${quoted(join(cgroup, 'cgroup.procs'))}`,
      `exec unshare ${namespaces.join(' ')} bash -ec ${quoted(inside)}`,
    ].join('\n');
    const program = await Program.start('bash', ['-ec', outside], { name: 'systemd' });
    const systemd = new Systemd(program, cgroup);
    try {
      systemd.#init = await until(() => childOf(program.pid), { what: 'systemd is started' });
      await until(
        async () => /^(running|degraded)/.test(await systemd.run('systemctl', ['is-system-running'], false)),
        {
          what: 'systemd answers',
        },
      );
      return systemd;
    } catch (error) {
      await systemd[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Turns a command line into one that runs there. */
  wrap(command: string, args: readonly string[]): readonly [string, readonly string[]] {
    return ['nsenter', ['-t', `${this.#init}`, '-p', '-m', '-C', command, ...args]];
  }

  /** What a command there prints. @throws `failed-precondition` when it fails, unless `check` is false */
  async run(command: string, args: readonly string[], check = true): Promise<string> {
    const [file, rest] = this.wrap(command, args);
    return (await run(file, rest, { check })).stdout.trim();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#program.kill();
    await until(() => readFileSync(join(this.#cgroup, 'cgroup.events'), 'utf8').includes('populated 0'), {
      what: 'everything that systemd started is gone',
    });
    removeGroup(this.#cgroup);
  }
}

/** The only child of a process, once it has one. */
function childOf(pid: number): number | undefined {
  const [child] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ');
  return child ? Number(child) : undefined;
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

function removeGroup(path: string): void {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) removeGroup(join(path, entry.name));
  }
  rmdirSync(path);
}
