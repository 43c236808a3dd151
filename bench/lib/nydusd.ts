import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type Place, Program, run, Scratch, until } from '@pantala/testkit';
import { judge } from '../../e2e/judges/lib/installed.ts';

export interface NydusdOptions {
  readonly bootstrap: string;
  /** `device.backend` of its configuration. */
  readonly backend: Readonly<Record<string, unknown>>;
  /** `fs_prefetch` of its configuration; default: none is fetched. */
  readonly prefetch?: Readonly<Record<string, unknown>>;
  readonly place?: Place;
}

/** The real nydusd, serving one image through FUSE, with its blob cache. */
export class Nydusd implements AsyncDisposable {
  readonly path: string;
  readonly program: Program;
  readonly #scratch: Scratch;

  private constructor(path: string, program: Program, scratch: Scratch) {
    this.path = path;
    this.program = program;
    this.#scratch = scratch;
  }

  /** Resolves when it is mounted: in the mount namespace of the place. */
  static async start({ bootstrap, backend, prefetch, place }: NydusdOptions): Promise<Nydusd> {
    const scratch = Scratch.create('nydusd');
    const [path, cache, config] = [scratch.join('mount'), scratch.join('cache'), scratch.join('config.json')];
    mkdirSync(path);
    mkdirSync(cache);
    const settings = {
      device: { backend, cache: { type: 'blobcache', config: { work_dir: cache } } },
      mode: 'direct',
      fs_prefetch: prefetch ?? { enable: false },
    };
    writeFileSync(config, JSON.stringify(settings));
    const program = await Program.start(
      judge('nydusd'),
      // Without CAP_SYS_RESOURCE it cannot raise its limit of files, and dies of that.
      ['fuse', '--rlimit-nofile', '0', '-C', config, '-B', bootstrap, '-M', path, '--log-level', 'warn'],
      { name: 'nydusd', ...(place === undefined ? {} : { place }) },
    );
    await until(async () => !program.running || isMounted(program.pid, path), { what: 'nydusd mounts', interval: 5 });
    if (!program.running) throw new Error(`nydusd ended:\n${program.tail()}`);
    return new Nydusd(path, program, scratch);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const inside = ['-t', String(this.program.pid), '-m', 'umount', '-l', this.path];
    await run('nsenter', inside, { check: false });
    await this.program[Symbol.asyncDispose]();
    await this.#scratch[Symbol.asyncDispose]();
  }
}

function isMounted(pid: number, path: string): boolean {
  try {
    return readFileSync(`/proc/${pid}/mounts`, 'utf8').includes(` ${path} fuse`);
  } catch {
    return false;
  }
}
