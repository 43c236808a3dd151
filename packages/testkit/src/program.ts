import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { PantalaError } from '@pantala/base';
import { PATIENCE, until, within } from './wait.ts';

/** Where a program runs: the host, or a network namespace. */
export interface Place {
  /** The address under which others reach what listens here. */
  readonly address: string;
  /** The address that only programs of this place need. */
  readonly localhost: string;
  /** Turns a command line into one that runs here. */
  wrap(command: string, args: readonly string[]): readonly [string, readonly string[]];
}

export interface ProgramOptions {
  /** For messages; the command's base name by default. */
  readonly name?: string;
  readonly place?: Place;
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** When the program counts as started: a pattern in its output, or a question that is asked again and again. */
  readonly ready?: RegExp | (() => Promise<boolean>);
  /** Milliseconds. */
  readonly readyTimeout?: number;
}

/** What a process has used so far. */
export interface Usage {
  readonly cpuSeconds: number;
  /** Bytes resident, and of these the anonymous ones (heap and buffers, without mapped files). */
  readonly rss: number;
  readonly rssAnon: number;
  /** The most that was ever resident. */
  readonly peakRss: number;
}

export interface ExitStatus {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Output that is kept of each stream; the beginning goes first. */
const OUTPUT_LIMIT = 4 * 1024 * 1024;
/** Linux counts CPU time in these units per second for user space, whatever the kernel's own tick. */
const CLOCK_TICKS = 100;
const NO_USAGE: Usage = { cpuSeconds: 0, rss: 0, rssAnon: 0, peakRss: 0 };

const setprivInstalled = installed('setpriv');
const living = new Set<ChildProcess>();
process.once('exit', () => {
  for (const child of living) child.kill('SIGKILL');
});
// `exit` is not emitted for a signal that nobody handles.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    if (process.listenerCount(signal) === 0) process.exit(signal === 'SIGINT' ? 130 : 143);
  });
}

/** A program that was started, with what it printed and what it uses. Disposing stops it. */
export class Program implements AsyncDisposable {
  readonly name: string;
  readonly exited: Promise<ExitStatus>;
  stdout = '';
  stderr = '';
  readonly #child: ChildProcess;
  #status: ExitStatus | undefined;
  #usage: Usage = NO_USAGE;

  private constructor(name: string, child: ChildProcess) {
    this.name = name;
    this.#child = child;
    living.add(child);
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      this.stdout = keep(this.stdout + text);
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.stderr = keep(this.stderr + text);
    });
    const { promise, resolve } = Promise.withResolvers<ExitStatus>();
    const settle = (status: ExitStatus): void => {
      living.delete(child);
      this.#status ??= status;
      resolve(this.#status);
    };
    // `close`, not `exit`: the output is complete then.
    child.once('close', (code, signal) => settle({ code, signal }));
    child.once('error', (error) => {
      this.stderr += `${error.message}\n`;
      settle({ code: 127, signal: null });
    });
    this.exited = promise;
  }

  /** @throws `failed-precondition` when it ends, or `deadline-exceeded` when it is not ready in time. */
  static async start(command: string, args: readonly string[], options: ProgramOptions = {}): Promise<Program> {
    const [file, rest] = tied(...(options.place?.wrap(command, args) ?? [command, args]));
    const program = new Program(
      options.name ?? basename(command),
      spawn(file, rest, {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { ...process.env, ...options.env },
        ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
      }),
    );
    const { ready } = options;
    if (ready === undefined) return program;
    try {
      await until(
        async () => {
          if (program.#status !== undefined) return true;
          return ready instanceof RegExp ? ready.test(program.stdout) || ready.test(program.stderr) : ready();
        },
        { what: `${program.name} starts`, timeout: options.readyTimeout ?? PATIENCE },
      );
    } catch (error) {
      await program.kill();
      throw new PantalaError('deadline-exceeded', `${program.name} is not ready in time:\n${program.tail()}`, {
        cause: error,
      });
    }
    if (program.#status !== undefined) {
      throw new PantalaError('failed-precondition', `${program.name} ended at once:\n${program.tail()}`);
    }
    return program;
  }

  get pid(): number {
    return this.#child.pid ?? -1;
  }

  get running(): boolean {
    return this.#status === undefined;
  }

  /** The end of what it printed, for error messages. */
  tail(length = 3000): string {
    return (this.stderr + this.stdout).slice(-length);
  }

  /** What it uses now; of a program that has ended, what was seen last. */
  usage(): Usage {
    if (this.running) this.#usage = usageOf(this.pid) ?? this.#usage;
    return this.#usage;
  }

  signal(signal: NodeJS.Signals): void {
    if (this.running) this.#child.kill(signal);
  }

  /** SIGKILL, as a crash would look. */
  async kill(): Promise<ExitStatus> {
    this.usage();
    this.signal('SIGKILL');
    return this.exited;
  }

  /** SIGTERM, and SIGKILL when that has not helped after `grace` milliseconds. */
  async stop(grace = 10_000): Promise<ExitStatus> {
    this.usage();
    this.signal('SIGTERM');
    try {
      return await within(grace, `${this.name} stops`, this.exited);
    } catch {
      return this.kill();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop(3000);
  }
}

export interface RunResult extends ExitStatus {
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a command to its end. @throws `failed-precondition` with its output when it fails. */
export async function run(
  command: string,
  args: readonly string[],
  options: ProgramOptions & { readonly check?: boolean; readonly timeout?: number } = {},
): Promise<RunResult> {
  const program = await Program.start(command, args, options);
  let status: ExitStatus;
  try {
    status = await within(options.timeout ?? 10 * PATIENCE, `${command} ${args.join(' ')}`, program.exited);
  } finally {
    await program.kill();
  }
  if (options.check !== false && status.code !== 0) {
    throw new PantalaError(
      'failed-precondition',
      `${program.name} ${args.join(' ')}: status ${status.code ?? status.signal}\n${program.tail()}`,
    );
  }
  return { ...status, stdout: program.stdout, stderr: program.stderr };
}

/** From /proc; undefined when there is no such process. */
export function usageOf(pid: number): Usage | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in parentheses may hold blanks; fields are counted after it (proc(5): utime is 14, stime 15).
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const kib = (key: string): number => Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0);
    return {
      cpuSeconds: (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS,
      rss: kib('VmRSS') * 1024,
      rssAnon: kib('RssAnon') * 1024,
      peakRss: kib('VmHWM') * 1024,
    };
  } catch {
    return undefined;
  }
}

/** Whether a command can be found on PATH. */
export function installed(command: string): boolean {
  const folders = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin'];
  return folders.some((folder) => existsSync(`${folder}/${command}`));
}

/** A command line whose process the kernel ends with ours, even when ours is killed. */
function tied(command: string, args: readonly string[]): readonly [string, readonly string[]] {
  if (!setprivInstalled) return [command, args];
  return ['setpriv', ['--pdeathsig', 'KILL', '--', command, ...args]];
}

function keep(text: string): string {
  return text.length > OUTPUT_LIMIT ? text.slice(-OUTPUT_LIMIT / 2) : text;
}
