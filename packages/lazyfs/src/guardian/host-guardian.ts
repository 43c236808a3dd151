import { closeSync, ftruncateSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { createInterface } from 'node:readline';
import { type Logger, PantalaError } from '@pantala/base';
import { tryLock } from '@pantala/linux';
import { controlGroups, guardianGroups } from './control-groups.ts';
import { notifyReady, removeStored, storeDescriptors, storedDescriptors } from './descriptor-store.ts';
import { enterGroups } from './enter-groups.ts';
import type { Held } from './held.ts';
import { closeHeld, descriptorOf, isEmpty, receiveHeld, sendHeld } from './host-message.ts';
import type { HostGuardianAnswer, HostGuardianRequest, WorkerMessage } from './messages.ts';
import { spareFromOom } from './oom-score.ts';

export { lineLogger } from './line-logger.ts';

const NOTHING: Held = { generation: '', descriptors: {} };

export interface HostGuardianOptions {
  /** Its unix socket, which workers in containers have mounted; its directory is made. */
  readonly socket: string;
  readonly logger: Logger;
  readonly env: NodeJS.ProcessEnv;
}

/**
 * A guardian that is a program of its own, in the host's PID namespace: it holds what a worker in a container gives it,
 * beyond the container's end, and gives it to the next one. It starts nobody, for what starts containers does that.
 * Under systemd the descriptors lie in its store as well, so that they outlive guardian and worker together.
 */
export class HostGuardian implements AsyncDisposable {
  readonly #options: HostGuardianOptions;
  readonly #server: Server;
  readonly #notJoined: readonly string[];
  readonly oomScore: number;
  readonly #lock: number;
  #held: Held;
  #worker: Socket | undefined;

  private constructor(options: HostGuardianOptions, lock: number) {
    const { env, logger } = options;
    this.#options = options;
    this.#lock = lock;
    // A unit of systemd's has a group of its own, which nobody else is in.
    this.#notJoined = env.NOTIFY_SOCKET === undefined ? enterGroups(guardianGroups(controlGroups())) : [];
    this.oomScore = spareFromOom();
    this.#held = storedDescriptors(env, process.pid) ?? NOTHING;
    this.#server = createServer({ pauseOnConnect: true }, (socket) => {
      // Whoever is killed closes like that.
      socket.on('error', () => undefined);
      this.#meet(socket).catch((error: unknown) => {
        logger.warn('a worker was not understood', { error });
        socket.destroy();
      });
    });
  }

  /**
   * Takes the place of a guardian that has ended.
   *
   * @throws `already-exists` while one lives: it would hold on, and no worker would reach it; `permission-denied`
   */
  static async listen(options: HostGuardianOptions): Promise<HostGuardian> {
    const { socket, env, logger } = options;
    await mkdir(dirname(socket), { recursive: true, mode: 0o700 });
    const guardian = new HostGuardian(options, lockFor(socket));
    // The guardian before this one has left it there.
    rmSync(socket, { force: true });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    guardian.#server.once('error', (error) => reject(PantalaError.from(error)));
    const mask = process.umask(0o177);
    guardian.#server.listen(socket, resolve);
    process.umask(mask);
    await promise;
    notifyReady(env, logger);
    const { oomScore } = guardian;
    logger.info('guardian listens', {
      socket,
      oomScore,
      notJoined: guardian.#notJoined.join('; '),
      ...guardian.#state,
    });
    return guardian;
  }

  /** Whether readers would be let through to holes if this process ended now. */
  get isLastHolder(): boolean {
    return this.#worker === undefined && !isEmpty(this.#held);
  }

  get #state(): { readonly generation: string; readonly holds: string } {
    return { generation: this.#held.generation, holds: Object.keys(this.#held.descriptors).join(',') };
  }

  /** A worker says what it has, and is given what it has not. */
  async #meet(socket: Socket): Promise<void> {
    const { logger } = this.#options;
    const fd = descriptorOf(socket);
    const { message, held: given } = await receiveHeld<HostGuardianRequest>(fd);
    if (socket.destroyed) {
      closeHeld(given);
      return;
    }
    if (this.#worker !== undefined && !message.replaces) {
      closeHeld(given);
      const busy: HostGuardianAnswer = { kind: 'busy' };
      sendHeld(fd, busy, NOTHING);
      socket.end();
      return;
    }
    this.#worker = socket;
    socket.once('close', () => {
      if (this.#worker !== socket) return;
      this.#worker = undefined;
      logger.info('the worker has gone; its readers wait for the next one', this.#state);
    });
    const gives = isEmpty(given);
    if (!gives) this.#keep(given);
    const { oomScore } = this;
    const answer: HostGuardianAnswer = { kind: 'guardian', pid: process.pid, oomScore, notJoined: this.#notJoined };
    sendHeld(fd, answer, gives ? this.#held : NOTHING);
    logger.info('a worker has come', { ...this.#state, took: gives });
    createInterface({ input: socket }).on('line', (line) => {
      if ((JSON.parse(line) as WorkerMessage).kind === 'leave') this.#release(socket);
    });
    socket.resume();
  }

  #keep(held: Held): void {
    const { env, logger } = this.#options;
    const before = this.#held;
    this.#held = held;
    storeDescriptors(held, env, logger);
    if (before.generation !== held.generation) removeStored(before, env, logger);
    closeHeld(before);
  }

  /** Nothing is to be held any more. */
  #release(socket: Socket): void {
    const { env, logger } = this.#options;
    if (this.#worker === socket) {
      removeStored(this.#held, env, logger);
      closeHeld(this.#held);
      this.#held = NOTHING;
    }
    socket.destroy();
  }

  /** Ends; what it holds stays where else it is held. */
  async [Symbol.asyncDispose](): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    this.#worker?.destroy();
    await promise;
    closeHeld(this.#held);
    this.#held = NOTHING;
    closeSync(this.#lock);
  }
}

/** The kernel keeps it for as long as the process lives, also while that answers nobody. @throws `already-exists` */
function lockFor(socket: string): number {
  const path = `${socket}.lock`;
  let lock: number;
  try {
    lock = openSync(path, 'a', 0o600);
  } catch (error) {
    throw PantalaError.from(error);
  }
  if (!tryLock(lock)) {
    closeSync(lock);
    const pid = readFileSync(path, 'utf8').trim();
    throw new PantalaError(
      'already-exists',
      `a guardian (pid ${pid}) listens on ${socket}; end it first, or give this one a --socket of its own`,
    );
  }
  ftruncateSync(lock, 0);
  writeSync(lock, `${process.pid}\n`);
  return lock;
}
