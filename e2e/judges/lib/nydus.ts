import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { Program, run, Scratch, until } from '@pantala/testkit';
import { judge } from './installed.ts';

export interface NydusOutcome {
  readonly code: number | null;
  readonly said: string;
}

/** Runs the real `nydus-image`. */
export async function nydusImage(args: readonly string[]): Promise<NydusOutcome> {
  const ended = await run(judge('nydus-image'), args, { name: 'nydus-image', check: false });
  return { code: ended.code, said: ended.stderr + ended.stdout };
}

/** Which programs judge, as they say it themselves; a build without git says no number of its own. */
export async function nydusVersions(): Promise<string> {
  const { stdout } = await run(judge('nydusd'), ['--version'], { check: false });
  return stdout
    .trim()
    .split('\n')
    .slice(0, 3)
    .map((line) => line.replaceAll(/\s+/g, ' '))
    .join(', ');
}

/** A bootstrap mounted by the real nydusd through FUSE, its blobs in a folder. */
export class NydusMount implements AsyncDisposable {
  readonly path: string;
  readonly #program: Program;
  readonly #scratch: Scratch;

  private constructor(path: string, program: Program, scratch: Scratch) {
    this.path = path;
    this.#program = program;
    this.#scratch = scratch;
  }

  /** @param blobs of which it makes a copy: nydusd writes its cache beside them */
  static async start(bootstrap: string, blobs: string): Promise<NydusMount> {
    const scratch = Scratch.create('nydusd');
    const path = scratch.join('mount');
    mkdirSync(path);
    await run('cp', ['-r', '--reflink=auto', blobs, scratch.join('blobs')]);
    const program = await Program.start(
      judge('nydusd'),
      // Without CAP_SYS_RESOURCE it cannot raise its limit of files, and dies of that.
      ['fuse', '--rlimit-nofile', '0', '-D', scratch.join('blobs'), '-B', bootstrap, '-M', path, '--log-level', 'warn'],
      { name: 'nydusd', ready: async () => mounted(path) },
    );
    return new NydusMount(path, program, scratch);
  }

  /** What it wrote to its log. */
  get said(): string {
    return this.#program.tail();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await run('umount', [this.path], { check: false });
    await until(async () => !mounted(this.path), { what: 'the mount of nydusd is gone' });
    await this.#program[Symbol.asyncDispose]();
    await this.#scratch[Symbol.asyncDispose]();
  }
}

function mounted(path: string): boolean {
  return existsSync(path) && readFileSync('/proc/mounts', 'utf8').includes(` ${path} fuse`);
}
