import { mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Place, Program, run, until } from '@pantala/testkit';

/** Where control groups can be ended as a whole (cgroup.kill of version 2). */
export async function unifiedRoot(): Promise<string | undefined> {
  const { stdout } = await run('findmnt', ['-nt', 'cgroup2', '-o', 'TARGET'], { check: false });
  return stdout.split('\n')[0] || undefined;
}

export interface ContainerOptions {
  readonly name: string;
  /** As `unifiedRoot` tells. */
  readonly cgroups: string;
  /** A command that is its first process. */
  readonly command: readonly string[];
  readonly ready: RegExp;
}

/**
 * A container without its own files: PID, mount and control group namespaces, and a group of its own, which is ended as
 * a whole. Mounts under shared directories are seen by the host, as with `rshared`.
 */
export class Container implements Place, AsyncDisposable {
  readonly address = '';
  readonly localhost = '';
  readonly program: Program;
  readonly #group: string;

  private constructor(program: Program, group: string) {
    this.program = program;
    this.#group = group;
  }

  static async start({ name, cgroups, command, ready }: ContainerOptions): Promise<Container> {
    const group = join(cgroups, `pantala-container-${process.pid}-${name}`);
    mkdirSync(group, { recursive: true });
    const namespaces = ['--pid', '--fork', '--kill-child', '--cgroup', '--mount', '--propagation', 'unchanged'];
    const script = 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"';
    const args = ['-ec', script, 'container', group, 'unshare', ...namespaces, '--mount-proc', ...command];
    return new Container(await Program.start('bash', args, { name, ready }), group);
  }

  /** Its first process, by the host's numbers. */
  get init(): number {
    const path = `/proc/${this.program.pid}/task/${this.program.pid}/children`;
    return Number(readFileSync(path, 'utf8').split(' ')[0]);
  }

  get processes(): readonly number[] {
    return readFileSync(join(this.#group, 'cgroup.procs'), 'utf8').trim().split('\n').map(Number);
  }

  wrap(command: string, args: readonly string[]): readonly [string, readonly string[]] {
    return ['nsenter', ['-t', `${this.init}`, '-p', '-m', '-C', command, ...args]];
  }

  /** SIGKILL for everything in it at once. */
  async kill(): Promise<void> {
    writeFileSync(join(this.#group, 'cgroup.kill'), '1');
    await until(() => readFileSync(join(this.#group, 'cgroup.events'), 'utf8').includes('populated 0'), {
      what: 'the container has ended',
    });
    await this.program.exited;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    rmdirSync(this.#group);
  }
}
