import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Deferred, type Logger, monotonicNow, PantalaError, sleep } from '@pantala/base';
import { openPeerProcess, takeDescriptor } from '@pantala/linux';
import { type Guardian, type Held, handDown } from './held.ts';
import {
  GUARDIAN_VARIABLE,
  type GuardianMessage,
  type GuardianSettings,
  type WorkerCommand,
  type WorkerMessage,
} from './messages.ts';

const SCRIPT = fileURLToPath(new URL('./guardian.ts', import.meta.url));
/** Milliseconds for a guardian to answer after its start, on a busy machine. */
const START_DEADLINE = 30_000;
const RETRY_PAUSE = 5;

/** Flags of Node for a process that waits: little memory for what dies young, no threads for what it does not do. */
const FLAGS = ['--max-semi-space-size=1', '--v8-pool-size=0', '--single-threaded-gc', '--no-warnings'];

export interface GuardianLinkOptions {
  readonly settings: GuardianSettings;
  /** What is to be held; asked again for every new guardian. */
  readonly held: () => Held;
  readonly logger: Logger;
}

/**
 * A worker's connection to its guardian. When the guardian dies the worker starts another one at once, with the
 * descriptors that it still has itself.
 */
export class GuardianLink implements Guardian {
  readonly #options: GuardianLinkOptions;
  #socket: Socket | undefined;
  #guardian: GuardianMessage | undefined;
  #leaving = false;

  private constructor(options: GuardianLinkOptions) {
    this.#options = options;
  }

  /**
   * Starts a guardian.
   *
   * @throws `unavailable` when it does not answer
   */
  static async start(options: GuardianLinkOptions): Promise<GuardianLink> {
    const link = new GuardianLink(options);
    await link.#start();
    return link;
  }

  /** Connects to the guardian that is there; undefined when there is none. */
  static async join(options: GuardianLinkOptions): Promise<GuardianLink | undefined> {
    const link = new GuardianLink(options);
    return (await link.#connect(0)) ? link : undefined;
  }

  /**
   * Copies of what the guardian holds, for a worker that was started by somebody else: also out of another PID
   * namespace, for the process is the one at the other end of the socket.
   *
   * @throws LinuxError: EPERM where this process may not trace the guardian
   */
  take(): Held {
    const held = this.#guardian?.held;
    const socket = this.#socket as unknown as { readonly _handle?: { readonly fd: number } } | undefined;
    if (held === undefined || socket?._handle === undefined) {
      throw new PantalaError('unavailable', 'the guardian has gone');
    }
    const guardian = openPeerProcess(socket._handle.fd);
    try {
      const taken = Object.entries(held.descriptors).map(([name, fd]) => [name, takeDescriptor(guardian, fd)]);
      return { generation: held.generation, descriptors: Object.fromEntries(taken) };
    } finally {
      closeSync(guardian);
    }
  }

  get pid(): number {
    return this.#guardian?.pid ?? 0;
  }

  get oomScore(): number {
    return this.#guardian?.oomScore ?? 0;
  }

  /** Starts a guardian that holds what there is to hold now, in place of the one before. */
  async renew(): Promise<void> {
    const before = this.#socket;
    this.#socket = undefined;
    await this.#start();
    before?.end(line({ kind: 'leave' }));
  }

  /** Has the next worker started by another command; it takes over when this process ends. */
  replace(worker: WorkerCommand): void {
    this.#socket?.write(line({ kind: 'replace', worker }));
  }

  /** Ends the guardian: what it holds goes with this process. */
  async leave(): Promise<void> {
    this.#leaving = true;
    const socket = this.#socket;
    if (socket === undefined || socket.destroyed) return;
    const closed = once(socket, 'close');
    socket.write(line({ kind: 'leave' }));
    await closed;
  }

  [Symbol.dispose](): void {
    this.#leaving = true;
    this.#socket?.destroy();
  }

  async #start(): Promise<void> {
    const { settings, held, logger } = this.#options;
    const { stdio, env } = handDown(held());
    const log = openSync(settings.log, 'a');
    const child = spawn(process.execPath, [...FLAGS, SCRIPT], {
      stdio: ['ignore', log, log, ...stdio],
      env: {
        ...process.env,
        ...env,
        [GUARDIAN_VARIABLE]: JSON.stringify(settings),
      },
      detached: true,
    });
    child.on('error', (error) => logger.error('the guardian cannot be started', { error }));
    child.unref();
    closeSync(log);
    if (!(await this.#connect(child.pid ?? 0))) {
      throw new PantalaError('unavailable', `the guardian did not answer on ${settings.socket}; see ${settings.log}`);
    }
    logger.info('guardian started', {
      pid: this.pid,
      oomScore: this.oomScore,
      notJoined: this.#guardian?.notJoined,
    });
  }

  /** @param pid of the one that is to answer; 0: whichever is there, now */
  async #connect(pid: number): Promise<boolean> {
    const deadline = monotonicNow() + START_DEADLINE;
    do {
      const socket = connect(this.#options.settings.socket);
      try {
        await once(socket, 'connect');
        const answer = new Deferred<GuardianMessage>();
        createInterface({ input: socket }).once('line', (text) => answer.resolve(JSON.parse(text) as GuardianMessage));
        socket.once('close', () => answer.reject(new PantalaError('unavailable', 'the guardian closed')));
        socket.write(line({ kind: 'worker', pid: process.pid }));
        const guardian = await answer.promise;
        if (pid !== 0 && guardian.pid !== pid) throw new PantalaError('unavailable', 'the guardian before answered');
        this.#guardian = guardian;
        this.#socket = socket;
        socket.on('error', () => undefined);
        socket.once('close', () => this.#lost(socket));
        if (socket.destroyed) this.#lost(socket);
        return true;
      } catch {
        socket.destroy();
        await sleep(RETRY_PAUSE);
      }
    } while (pid !== 0 && monotonicNow() < deadline);
    return false;
  }

  #lost(socket: Socket): void {
    if (this.#leaving || this.#socket !== socket) return;
    this.#socket = undefined;
    const { logger } = this.#options;
    logger.warn('the guardian died; another one is started', { pid: this.pid });
    this.#start().catch((error: unknown) => {
      logger.error('no guardian: mounts would not outlive this worker', { error });
    });
  }
}

function line(message: WorkerMessage): string {
  return `${JSON.stringify(message)}\n`;
}
