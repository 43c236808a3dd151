import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Place, Program, run } from '@pantala/testkit';

export interface RuncOptions {
  readonly name: string;
  /** A directory for its bundle. */
  readonly folder: string;
  /** A command that is its first process. */
  readonly command: readonly string[];
  readonly ready: RegExp;
  /** Directories that it has in the same place. */
  readonly directories: readonly string[];
  /** One of these whose mounts are the host's as well. */
  readonly shared: string;
}

/** What mounts and fanotify groups need, and no more: this one may trace nobody. */
const CAPABILITIES = ['CAP_SYS_ADMIN'];

/** A container as runc makes it for containerd, with the machine's programs in it. */
export class RuncContainer implements Place, AsyncDisposable {
  readonly address = '';
  readonly localhost = '';
  readonly #id: string;
  readonly #program: Program;

  private constructor(id: string, program: Program) {
    this.#id = id;
    this.#program = program;
  }

  static async start({ name, folder, command, ready, directories, shared }: RuncOptions): Promise<RuncContainer> {
    const bundle = join(folder, `bundle-${name}`);
    mkdirSync(join(bundle, 'rootfs'), { recursive: true });
    const bind = (path: string, options: readonly string[]) => ({
      destination: path,
      source: path,
      type: 'bind',
      options: ['rbind', ...options],
    });
    const config = {
      ociVersion: '1.0.2',
      process: {
        user: { uid: 0, gid: 0 },
        args: command,
        cwd: '/',
        env: [`PATH=${process.env.PATH ?? ''}`],
        capabilities: { bounding: CAPABILITIES, effective: CAPABILITIES, permitted: CAPABILITIES },
        noNewPrivileges: true,
      },
      root: { path: 'rootfs' },
      mounts: [
        { destination: '/proc', type: 'proc', source: 'proc' },
        { destination: '/dev', type: 'tmpfs', source: 'tmpfs', options: ['mode=755'] },
        { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['ro'] },
        { destination: '/sys/fs/cgroup', type: 'cgroup', source: 'cgroup', options: ['ro'] },
        ...['/usr', '/bin', '/lib', '/lib64', '/etc', ...directories].map((path) => bind(path, ['rprivate'])),
        bind(shared, ['rshared']),
      ],
      linux: {
        namespaces: ['pid', 'ipc', 'uts', 'mount', 'cgroup'].map((type) => ({ type })),
        resources: { devices: [{ allow: true, access: 'rwm' }] },
        devices: [{ path: '/dev/fuse', type: 'c', major: 10, minor: 229, fileMode: 0o600, uid: 0, gid: 0 }],
        // Without it mounts below the shared directory would end here.
        rootfsPropagation: 'shared',
      },
    };
    writeFileSync(join(bundle, 'config.json'), JSON.stringify(config));
    const id = `pantala-${process.pid}-${name}`;
    return new RuncContainer(id, await Program.start('runc', ['run', '--bundle', bundle, id], { name: id, ready }));
  }

  wrap(command: string, args: readonly string[]): readonly [string, readonly string[]] {
    return ['runc', ['exec', this.#id, command, ...args]];
  }

  /** SIGKILL for all that is in it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await run('runc', ['kill', this.#id, 'KILL'], { check: false });
    await this.#program.exited;
    await run('runc', ['delete', '--force', this.#id], { check: false });
  }
}
