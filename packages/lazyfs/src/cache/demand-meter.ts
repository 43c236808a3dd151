import { monotonicNow, sleep } from '@pantala/base';

/** Milliseconds without a waiting reader before anything is prefetched: a program that reads on thinks no longer. */
const QUIET = 20;
/** Milliseconds after which a prefetch goes on even so, one step: it must end some day under a steady load. */
const LONGEST_WAIT = 1_000;

/** Knows whether readers wait, so that whatever can wait gives way to them. */
export class DemandMeter {
  #waiting = 0;
  #quietSince = Number.NEGATIVE_INFINITY;

  get waiting(): number {
    return this.#waiting;
  }

  /** A reader waits until this is disposed. */
  enter(): Disposable {
    this.#waiting++;
    return {
      [Symbol.dispose]: () => {
        this.#waiting--;
        this.#quietSince = monotonicNow();
      },
    };
  }

  /**
   * Resolves when no reader has waited for a moment.
   *
   * @throws the reason of the signal
   */
  async quiet(signal: AbortSignal): Promise<void> {
    const began = monotonicNow();
    for (;;) {
      const quiet = this.#waiting > 0 ? 0 : monotonicNow() - this.#quietSince;
      if (quiet >= QUIET || monotonicNow() - began >= LONGEST_WAIT) return;
      await sleep(Math.max(1, QUIET - quiet), signal);
    }
  }
}
