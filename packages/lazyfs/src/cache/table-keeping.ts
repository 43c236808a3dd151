import { sleep } from '@pantala/base';

/** Milliseconds after a blob is opened: whoever has mounted it reads. */
const PAUSE = 400;

/** Has a blob's table of chunks written when no reader waits, at the latest when nobody uses the blob any more. */
export class TableKeeping {
  readonly #write: () => Promise<void>;
  readonly #waiting = new AbortController();
  #written: Promise<void> | undefined;

  /**
   * @param write never rejects
   * @param rest resolves when no reader waits
   */
  constructor(write: () => Promise<void>, rest: (signal: AbortSignal) => Promise<void>) {
    this.#write = write;
    const { signal } = this.#waiting;
    sleep(PAUSE, signal)
      .then(() => rest(signal))
      .then(
        () => this.finish(),
        () => {},
      );
  }

  /** Resolves when it is written. */
  finish(): Promise<void> {
    this.#waiting.abort();
    this.#written ??= this.#write();
    return this.#written;
  }
}
