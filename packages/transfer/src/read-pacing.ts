import { monotonicNow } from '@pantala/base';

/**
 * Bytes that one read is to bring: half of the window that TCP begins with, since more would hold up the sender. On a
 * link of 200 Mbit/s an eager reader is woken for each packet or two, some thousand times a second; each time costs a
 * system call, a turn of the event loop and a call into JavaScript.
 */
const READ_LENGTH = 32 * 1024;
/** Milliseconds that reading rests at most: far below what any deadline or choice of parents notices. */
const MAX_REST = 20;
/** Timers are no finer than this, and a faster sender fills a read by itself. */
const MIN_REST = 1;
/** Weight of the last read in the rate. */
const NEWEST = 0.25;

/**
 * Lets bytes gather in the kernel while a socket is read whose sender is slower than the reader, as a network card
 * does with its interrupts. For bulk only: a read is up to MAX_REST later for it.
 */
export class ReadPacing implements Disposable {
  readonly #resume: () => void;
  #timer: NodeJS.Timeout | undefined;
  /** Smoothed, of the reads of this sender. */
  #bytes = 0;
  #milliseconds = 0;
  #readAt = 0;

  /** @param resume called when reading may go on */
  constructor(resume: () => void) {
    this.#resume = resume;
  }

  get resting(): boolean {
    return this.#timer !== undefined;
  }

  /**
   * Told of each read of a bulk of bytes.
   *
   * @param length bytes that were read
   * @param expected bytes of the bulk that are still to come
   * @returns whether reading is to pause until `resume` is called
   */
  rests(length: number, expected: number): boolean {
    const now = monotonicNow();
    // A silence before it says nothing about the rate of a bulk.
    const passed = Math.min(now - this.#readAt, MAX_REST);
    this.#readAt = now;
    this.#bytes += (length - this.#bytes) * NEWEST;
    this.#milliseconds += (passed - this.#milliseconds) * NEWEST;
    if (this.#timer !== undefined) return true;
    if (length >= READ_LENGTH || expected <= 0) return false;
    const rest = Math.min(MAX_REST, (Math.min(READ_LENGTH, expected) * this.#milliseconds) / this.#bytes);
    if (!(rest >= MIN_REST)) return false;
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#resume();
    }, rest);
    return true;
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
