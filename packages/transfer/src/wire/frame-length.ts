import { MAX_FRAME_LENGTH } from './packet.ts';

/**
 * Bytes of a frame to a receiver of whom nothing is known: large enough that system calls cost little, small enough
 * that a small request waits little behind it (10 ms at 200 Mbit/s).
 */
export const SENT_FRAME_LENGTH = 256 * 1024;
/** Milliseconds that a frame takes on a link that is fast enough for larger ones, and on one that needs smaller ones. */
const SHORT = 4;
const LONG = 10;

/**
 * How large frames may be so that each takes a few milliseconds: both ends handle a frame as one, so that on fast links
 * larger ones cost less.
 */
export class FrameLength {
  #length = SENT_FRAME_LENGTH;

  get current(): number {
    return this.#length;
  }

  /** A frame of `length` bytes has left in so many milliseconds. */
  sent(length: number, milliseconds: number): void {
    if (milliseconds > LONG) this.#length = Math.max(SENT_FRAME_LENGTH, this.#length / 2);
    else if (length >= this.#length && milliseconds < SHORT)
      this.#length = Math.min(MAX_FRAME_LENGTH, this.#length * 2);
  }
}
