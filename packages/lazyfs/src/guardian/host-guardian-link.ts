import { closeSync } from 'node:fs';
import { Socket } from 'node:net';
import { type Logger, monotonicNow, PantalaError, sleep } from '@pantala/base';
import { connectSocket } from '@pantala/linux';
import type { Guardian, Held } from './held.ts';
import { closeHeld, isEmpty, receiveHeld, sendHeld } from './host-message.ts';
import type { HostGuardianAnswer, HostGuardianRequest, WorkerMessage } from './messages.ts';

/** Milliseconds between tries to reach a guardian. */
const RETRY_PAUSE = 50;
/** Milliseconds for the guardian to see that the worker before this one has gone. */
const BUSY_DEADLINE = 3000;

export interface HostGuardianLinkOptions {
  /** Of the guardian; mounted into this container. */
  readonly socket: string;
  /** What is to be held; asked again for every new guardian. */
  readonly held: () => Held;
  /** Called whenever a guardian was reached. */
  readonly onReached: (guardian: Guardian) => void;
  readonly logger: Logger;
}

/**
 * A worker's connection to a guardian of the host, which it neither starts nor could start: while there is none the
 * worker keeps the descriptors itself, and hands them over as soon as one is back.
 */
export class HostGuardianLink implements Guardian {
  readonly #options: HostGuardianLinkOptions;
  #socket: Socket | undefined;
  #guardian: Extract<HostGuardianAnswer, { kind: 'guardian' }> | undefined;
  #wasReached = false;
  #leaving = false;

  private constructor(options: HostGuardianLinkOptions) {
    this.#options = options;
  }

  /**
   * Meets the guardian, or goes on without until there is one.
   *
   * @param start.patience milliseconds to wait for a guardian: one that comes a little later may hold what this worker's
   *   mounts need
   * @param start.replaces whether the worker that is there is to make way
   * @returns with what the guardian held, if this worker has nothing; the descriptors belong to the caller
   * @throws `already-exists` when it holds for another worker
   */
  static async open(
    options: HostGuardianLinkOptions,
    start: { readonly patience: number; readonly replaces: boolean },
  ): Promise<{ readonly link: HostGuardianLink; readonly taken: Held | undefined }> {
    const { socket, logger } = options;
    const link = new HostGuardianLink(options);
    const began = monotonicNow();
    for (;;) {
      const met = await link.#meet(start.replaces);
      const waited = monotonicNow() - began;
      if (typeof met === 'object') return { link, taken: isEmpty(met) ? undefined : met };
      if (met === 'busy' && waited > BUSY_DEADLINE) {
        throw new PantalaError(
          'already-exists',
          `the guardian on ${socket} holds for another worker; give each its own`,
        );
      }
      if (met === 'absent' && waited > start.patience) break;
      await sleep(RETRY_PAUSE);
    }
    logger.warn('no guardian answers: until one does, mounts would not outlive this worker', { socket });
    void link.#meetAgain();
    return { link, taken: undefined };
  }

  get pid(): number {
    return this.#guardian?.pid ?? 0;
  }

  get oomScore(): number {
    return this.#guardian?.oomScore ?? 0;
  }

  /** Whether a guardian was there at any time. */
  get wasReached(): boolean {
    return this.#wasReached;
  }

  async renew(): Promise<void> {
    // Nothing to wait for: whoever is met next is given what there is then.
    if (this.#socket === undefined) return;
    const met = await this.#meet(true);
    if (typeof met === 'object') closeHeld(met);
    else this.#options.logger.warn('the guardian could not be given what is new', { met });
  }

  /** Whoever starts this worker starts the next one. */
  replace(): void {}

  async leave(): Promise<void> {
    this.#leaving = true;
    const socket = this.#socket;
    if (socket === undefined || socket.destroyed) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    socket.once('close', () => resolve());
    const message: WorkerMessage = { kind: 'leave' };
    socket.write(`${JSON.stringify(message)}\n`);
    await promise;
  }

  [Symbol.dispose](): void {
    this.#leaving = true;
    this.#socket?.destroy();
  }

  /** @returns what the guardian held, or why there is no answer */
  async #meet(replaces: boolean): Promise<Held | 'busy' | 'absent'> {
    const { socket: path, held, onReached, logger } = this.#options;
    let fd: number;
    try {
      fd = connectSocket(path);
    } catch (error) {
      logger.debug('no guardian', { error });
      return 'absent';
    }
    try {
      const request: HostGuardianRequest = { kind: 'worker', replaces };
      sendHeld(fd, request, held());
      const { message, held: given } = await receiveHeld<HostGuardianAnswer>(fd);
      if (message.kind === 'busy') {
        closeSync(fd);
        return 'busy';
      }
      this.#keep(new Socket({ fd }), message);
      logger.info('a guardian holds', { pid: message.pid, oomScore: message.oomScore });
      onReached(this);
      return given;
    } catch (error) {
      logger.debug('a guardian does not answer', { error });
      closeSync(fd);
      return 'absent';
    }
  }

  #keep(socket: Socket, guardian: Extract<HostGuardianAnswer, { kind: 'guardian' }>): void {
    const before = this.#socket;
    this.#socket = socket;
    this.#guardian = guardian;
    this.#wasReached = true;
    before?.destroy();
    socket.on('error', () => undefined);
    socket.once('close', () => {
      if (this.#leaving || this.#socket !== socket) return;
      this.#socket = undefined;
      this.#guardian = undefined;
      this.#options.logger.warn('the guardian has gone: this worker keeps the descriptors itself until it is back', {
        pid: guardian.pid,
      });
      void this.#meetAgain();
    });
    socket.resume();
  }

  async #meetAgain(): Promise<void> {
    while (!this.#leaving && this.#socket === undefined) {
      const met = await this.#meet(false);
      // What another one of this worker's mounts had was given up for lost.
      if (typeof met === 'object') closeHeld(met);
      else await sleep(RETRY_PAUSE);
    }
  }
}
