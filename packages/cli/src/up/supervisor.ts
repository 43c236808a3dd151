import { type ChildProcess, spawn } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Logger, PantalaError } from '@pantala/base';
import { STOP_DEADLINE_MS } from '@pantala/service';
import type { PlannedProgram } from './plan.ts';

/** Milliseconds for a child to answer after its start: generous, as the machine may be busy with all of them. */
const START_DEADLINE = 60_000;
/** Pause before a child that died is started again, in milliseconds; doubles up to the longest. */
const FIRST_RESTART_PAUSE = 200;
const LONGEST_RESTART_PAUSE = 10_000;
/** Added to a child's own deadline for its stop before it is killed. */
const KILL_GRACE = 2_000;

const MAIN = fileURLToPath(new URL('../main.ts', import.meta.url));

/** One program in a process of its own, started again when it dies. Disposing it stops it. */
export class SupervisedChild implements AsyncDisposable {
  readonly #program: PlannedProgram;
  readonly #file: string;
  readonly #logger: Logger;
  #child: ChildProcess | undefined;
  #restart: NodeJS.Timeout | undefined;
  #pause = FIRST_RESTART_PAUSE;
  #stopping = false;

  /** @param directory where the file with its options is written, readable by this user only */
  constructor(program: PlannedProgram, directory: string, logger: Logger) {
    this.#program = program;
    this.#file = join(directory, `${program.name}.json`);
    this.#logger = logger;
    mkdirSync(directory, { recursive: true });
    writeFileSync(this.#file, JSON.stringify({ role: program.role, logging: program.logging }), { mode: 0o600 });
  }

  /**
   * Starts it; resolves when it answers.
   *
   * @throws `unavailable` when it ends or does not answer in time
   */
  async start(): Promise<void> {
    const { name, role, logging } = this.#program;
    const child = spawn(
      process.execPath,
      [...process.execArgv, MAIN, role.name, '--supervised', this.#file, '--json'],
      {
        // Its stdin ends when this process does, however that happens.
        stdio: ['pipe', 'pipe', 'inherit'],
        // Ctrl-C in a terminal reaches this process alone: it stops the children one after the other.
        detached: true,
      },
    );
    this.#child = child;
    const ended = Promise.withResolvers<never>();
    ended.promise.catch(() => undefined);
    child.once('error', (cause) =>
      ended.reject(new PantalaError('unavailable', `${name} cannot be started`, { cause })),
    );
    child.once('exit', (code, signal) => {
      this.#logger.info(`${name} ended`, { code, signal });
      ended.reject(
        new PantalaError('unavailable', `${name} ended (${signal ?? `status ${code}`}); see above and ${logging.file}`),
      );
    });
    const ready = Promise.withResolvers<void>();
    createInterface({ input: child.stdout }).once('line', () => ready.resolve());
    const late = setTimeout(
      () =>
        ready.reject(new PantalaError('deadline-exceeded', `${name} did not answer within ${START_DEADLINE / 1000} s`)),
      START_DEADLINE,
    );
    try {
      await Promise.race([ready.promise, ended.promise]);
    } finally {
      clearTimeout(late);
    }
    this.#logger.info(`${name} answers`, { pid: child.pid });
    child.once('exit', () => this.#startAgain());
    // It may have ended between its line and here.
    if (child.exitCode !== null || child.signalCode !== null) this.#startAgain();
  }

  #startAgain(): void {
    if (this.#stopping) return;
    this.#logger.warn(`${this.#program.name} died and is started again`, { pause: this.#pause });
    this.#restart = setTimeout(() => {
      this.start().then(
        () => {
          this.#pause = FIRST_RESTART_PAUSE;
        },
        (error: unknown) => {
          this.#logger.error(`${this.#program.name} cannot be started again`, { error });
          this.#startAgain();
        },
      );
    }, this.#pause);
    this.#pause = Math.min(this.#pause * 2, LONGEST_RESTART_PAUSE);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#restart);
    await this.#stop();
    rmSync(this.#file, { force: true });
  }

  async #stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    child.once('exit', () => resolve());
    child.kill('SIGTERM');
    const late = setTimeout(() => child.kill('SIGKILL'), STOP_DEADLINE_MS + KILL_GRACE);
    await promise;
    clearTimeout(late);
  }
}
