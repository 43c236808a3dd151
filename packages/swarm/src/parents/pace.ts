import { FIRST_BUDGET } from '../selection/selection.ts';

/** Bytes outstanding at one parent at most: what a link of 1 Gbit/s carries in 64 ms. */
export const MAX_BUDGET = 8 * 1024 * 1024;
/** Milliseconds of a parent's flow that are asked for ahead: longer than any queue at it takes to turn over. */
const AHEAD = 50;
/** Milliseconds over which speed is measured. */
const SPAN = 100;
/** How much the newest measurement counts. */
const WEIGHT = 0.3;

/** How fast a parent gives, and how soon it usually answers. Times in milliseconds. */
export class Pace {
  #rate = 0;
  #spanStart: number | undefined;
  #spanBytes = 0;
  #answer = 0;

  /** Bytes that should be outstanding at it. */
  get budget(): number {
    return Math.min(MAX_BUDGET, Math.max(FIRST_BUDGET, this.#rate * AHEAD));
  }

  /** The usual time from a request to its first bytes. */
  get usualAnswer(): number {
    return this.#answer;
  }

  answered(milliseconds: number): void {
    this.#answer = this.#answer === 0 ? milliseconds : this.#answer * (1 - WEIGHT) + milliseconds * WEIGHT;
  }

  /** Bytes came while something was outstanding. True when the budget has changed. */
  received(bytes: number, now: number): boolean {
    this.#spanStart ??= now;
    this.#spanBytes += bytes;
    const elapsed = now - this.#spanStart;
    // The first bytes say something at once: a fast parent must not be starved for a whole span.
    if (elapsed < (this.#rate === 0 ? SPAN / 20 : SPAN)) return false;
    const rate = this.#spanBytes / elapsed;
    this.#rate = this.#rate === 0 ? rate : this.#rate * (1 - WEIGHT) + rate * WEIGHT;
    this.#spanStart = now;
    this.#spanBytes = 0;
    return true;
  }

  /** Nothing is outstanding: time that passes now says nothing of its speed. */
  idle(): void {
    this.#spanStart = undefined;
    this.#spanBytes = 0;
  }
}
