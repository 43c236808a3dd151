import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ControlClient, type DriverName, type MountLine, placesOf } from '@pantala/lazyfs';
import { mountTable } from '@pantala/linux';
import { type Place, type Program, Program as Programs, pantala, run, Scratch, until } from '@pantala/testkit';

/** What comparing readers found. */
export interface Comparison {
  readonly reads: number;
  readonly bytes: number;
  readonly errors: readonly unknown[];
  readonly wrong: readonly unknown[];
  /** Milliseconds of the longest reads, ascending. */
  readonly waits: readonly number[];
}

export interface BuiltImage {
  readonly tree: string;
  readonly bootstrap: string;
  readonly blobs: string;
}

/** Lazy mounts in a scratch directory, with a worker and a guardian of their own. */
export class LazyStage implements AsyncDisposable {
  readonly scratch = Scratch.create('lazy');
  readonly places = placesOf(this.scratch.join('run'), this.scratch.join('cache'));
  readonly worker = new ControlClient(this.places.api);
  readonly #place: Place | undefined;
  #built = 0;

  /** @param place where commands and worker run; default: here */
  constructor(place?: Place) {
    this.#place = place;
    living.add(this.places.stateDirectory);
  }

  get options(): string[] {
    return ['--state-dir', this.places.stateDirectory, '--cache-dir', this.places.cacheDirectory];
  }

  /** Builds an image of a tree. @param options of `pantala image build` */
  async build(tree: string, options: readonly string[] = []): Promise<BuiltImage> {
    const blobs = this.scratch.join('blobs');
    mkdirSync(blobs, { recursive: true });
    const bootstrap = this.scratch.join(`bootstrap-${this.#built++}`);
    await this.command('image', 'build', tree, '-B', bootstrap, '-D', blobs, '--no-progress', '--json', ...options);
    return { tree, bootstrap, blobs };
  }

  /** Runs a command of Pantala to its end. @returns what it printed */
  async command(...args: readonly string[]): Promise<string> {
    const program = await pantala(args, this.#place === undefined ? {} : { place: this.#place });
    const status = await program.exited;
    if (status.code !== 0) throw new Error(`pantala ${args.join(' ')}: status ${status.code}\n${program.tail()}`);
    return program.stdout;
  }

  async mount(image: BuiltImage, name: string, ...options: readonly string[]): Promise<MountLine> {
    return this.mountWith(['--bootstrap', image.bootstrap, '--blob-dir', image.blobs], name, ...options);
  }

  /** @param source what names the image and its blobs */
  async mountWith(source: readonly string[], name: string, ...options: readonly string[]): Promise<MountLine> {
    const target = this.scratch.join(name);
    return JSON.parse(
      await this.command('mount', ...this.options, ...options, ...source, target, '--json'),
    ) as MountLine;
  }

  async umount(name: string): Promise<void> {
    await this.command('umount', ...this.options, this.scratch.join(name));
  }

  async mounts(): Promise<MountLine[]> {
    return JSON.parse(await this.command('mounts', ...this.options, '--json')) as MountLine[];
  }

  /** Processes that serve now; undefined while none does. */
  async serving(): Promise<{ readonly pid: number; readonly guardian: number } | undefined> {
    try {
      return (await this.worker.call('GET', '/pantala/v1/worker')) as { pid: number; guardian: number };
    } catch {
      return undefined;
    }
  }

  /** Kills the worker that serves and waits for the next one. @returns its number */
  async killWorker(): Promise<number> {
    const before = await this.#servingNow();
    process.kill(before.pid, 'SIGKILL');
    const next = await until(
      async () => {
        const found = await this.serving();
        return found !== undefined && found.pid !== before.pid ? found : undefined;
      },
      { what: 'another worker serves' },
    );
    return next.pid;
  }

  /** Kills the guardian and waits for the next one. */
  async killGuardian(): Promise<number> {
    const before = await this.#servingNow();
    process.kill(before.guardian, 'SIGKILL');
    const next = await until(
      async () => {
        const found = await this.serving();
        return found !== undefined && found.guardian !== before.guardian && found.guardian !== 0 ? found : undefined;
      },
      { what: 'another guardian holds' },
    );
    return next.guardian;
  }

  /** Kills worker, standby and guardian in one go. */
  async killEverything(): Promise<void> {
    await this.#servingNow();
    await killAll(this.places.stateDirectory);
  }

  async #servingNow(): Promise<{ readonly pid: number; readonly guardian: number }> {
    return until(() => this.serving(), { what: 'a worker serves' });
  }

  /** Starts readers that compare; see compare.py. */
  compare(image: BuiltImage, name: string, readers: number, seconds: number, seed = 1): Promise<Program> {
    const script = join(import.meta.dirname, 'compare.py');
    const args = [script, image.tree, this.scratch.join(name), String(readers), String(seconds), String(seed)];
    return Programs.start('python3', args, { name: 'comparing readers', ready: /^comparing$/m });
  }

  async compared(program: Program): Promise<Comparison> {
    const { code } = await program.exited;
    if (code !== 0) throw new Error(`comparing readers: status ${code}\n${program.tail()}`);
    return JSON.parse(program.stdout) as Comparison;
  }

  log(): string {
    return readFileSync(this.places.log, 'utf8');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await killAll(this.places.stateDirectory);
    living.delete(this.places.stateDirectory);
    for (const { target } of mountTable().toReversed()) {
      if (target.startsWith(`${this.scratch.path}/`)) await run('umount', ['-l', target], { check: false });
    }
    await this.scratch[Symbol.asyncDispose]();
  }
}

/** What an end without any waiting takes: a process may start another one while it is looked for. */
const LAST_ROUNDS = 100;
/** State directories of stages that are not disposed of. */
const living = new Set<string>();
// A test that is broken off runs nothing else.
process.once('exit', () => {
  for (const stateDirectory of living) for (let round = 0; round < LAST_ROUNDS && !killOurs(stateDirectory); round++);
});

/** Ends workers, standbys and guardians of a state directory: each may start another one until it is gone itself. */
async function killAll(stateDirectory: string): Promise<void> {
  await until(async () => killOurs(stateDirectory), { what: 'everything is gone' });
}

/** @returns whether there was none */
function killOurs(stateDirectory: string): boolean {
  const pids = ours(stateDirectory);
  // None sees another one's end.
  for (const signal of ['SIGSTOP', 'SIGKILL'] as const) for (const pid of pids) kill(pid, signal);
  return pids.length === 0;
}

function ours(stateDirectory: string): number[] {
  return readdirSync('/proc')
    .map(Number)
    .filter((pid) => isOurs(pid, stateDirectory));
}

/** Whether a number is still that of a process that was started for this stage: numbers are used again. */
function isOurs(pid: number, stateDirectory: string): boolean {
  try {
    const environment = readFileSync(`/proc/${pid}/environ`, 'latin1');
    const args = readFileSync(`/proc/${pid}/cmdline`, 'latin1');
    return pid > 1 && (environment.includes(stateDirectory) || args.includes(stateDirectory));
  } catch {
    return false;
  }
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended by itself.
  }
}

export const DRIVERS: readonly { readonly driver: DriverName; readonly options: readonly string[] }[] = [
  { driver: 'fanotify', options: ['--driver', 'fanotify'] },
  { driver: 'fuse', options: ['--driver', 'fuse'] },
  { driver: 'fuse', options: ['--driver', 'fuse', '--loop'] },
];
