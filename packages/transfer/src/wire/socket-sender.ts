import type { Socket } from 'node:net';
import { type Counter, PantalaError, type RateLimiter } from '@pantala/base';
import { sendFileRange } from '@pantala/linux';
import { MAX_FRAME_LENGTH } from './packet.ts';

/** Sends packets and parts of files to one socket, in order, at a limited rate, and cuts a receiver that stalls. */
export class SocketSender {
  readonly #socket: Socket;
  readonly #limiter: RateLimiter;
  readonly #traffic: Counter;
  readonly #signal: AbortSignal;
  readonly #deadline: NodeJS.Timeout;
  #waiting = false;

  /** @param signal aborts when the socket is closed */
  constructor(socket: Socket, limiter: RateLimiter, traffic: Counter, signal: AbortSignal, sendTimeout: number) {
    this.#socket = socket;
    this.#limiter = limiter;
    this.#traffic = traffic;
    this.#signal = signal;
    this.#deadline = setTimeout(() => {
      if (this.#waiting) socket.destroy(new PantalaError('deadline-exceeded', 'the receiver does not take its bytes'));
    }, sendTimeout);
    this.#deadline.unref();
    signal.addEventListener('abort', () => clearTimeout(this.#deadline), { once: true });
  }

  /** Resolves when the kernel has taken the packet. @throws when the socket is gone or the receiver stalls */
  async packet(packet: Buffer): Promise<void> {
    if (this.#signal.aborted) throw PantalaError.from(this.#signal.reason);
    await this.#timed(
      new Promise<void>((resolve, reject) => {
        // A socket that is destroyed meanwhile may forget the callback.
        const onClose = () => reject(new PantalaError('unavailable', 'the receiver is gone'));
        this.#socket.once('close', onClose);
        this.#socket.write(packet, (error) => {
          this.#socket.off('close', onClose);
          if (error) reject(PantalaError.from(error));
          else resolve();
        });
      }),
    );
  }

  /** Sends bytes `start` up to `end` of a file. `head` goes before them. @throws as `packet` */
  async file(fd: number, start: number, end: number, head?: Buffer): Promise<void> {
    let at = start;
    while (at < end) {
      const next = Math.min(end, at + MAX_FRAME_LENGTH);
      await this.#limiter.acquire(next - at, this.#signal);
      if (head !== undefined && at === start) await this.packet(head);
      await this.#timed(sendFileRange(this.#socket, fd, at, next, { signal: this.#signal }));
      this.#traffic.add(next - at);
      at = next;
    }
  }

  async #timed(work: Promise<void>): Promise<void> {
    this.#deadline.refresh();
    this.#waiting = true;
    try {
      await work;
    } finally {
      this.#waiting = false;
    }
  }
}
