import { formatSize } from '@pantala/service';

/** Milliseconds between two drawings: faster is not seen. */
const REDRAW_INTERVAL = 100;

/** One line on stderr that is drawn over and over; nothing where stderr is no terminal, or programs read the output. */
export class ProgressLine implements Disposable {
  readonly #terminal: NodeJS.WriteStream | undefined;
  #drawn = Number.NEGATIVE_INFINITY;
  #isOpen = false;

  constructor(enabled: boolean) {
    this.#terminal = enabled && process.stderr.isTTY ? process.stderr : undefined;
  }

  /** @param text is only asked for when it is drawn */
  show(text: () => string): void {
    const now = performance.now();
    if (this.#terminal === undefined || now - this.#drawn < REDRAW_INTERVAL) return;
    this.#drawn = now;
    this.#isOpen = true;
    const columns = Math.max(20, (this.#terminal.columns ?? 80) - 1);
    this.#terminal.write(`\r\u001b[K${text().slice(0, columns)}`);
  }

  /** Takes the line away, for what is to be read. */
  clear(): void {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    this.#drawn = Number.NEGATIVE_INFINITY;
    this.#terminal?.write('\r\u001b[K');
  }

  [Symbol.dispose](): void {
    this.clear();
  }
}

/** `42 % of 1.2 GiB`. */
export function share(done: number, total: number): string {
  return total === 0 ? formatSize(done) : `${Math.floor((done / total) * 100)} % of ${formatSize(total)}`;
}
