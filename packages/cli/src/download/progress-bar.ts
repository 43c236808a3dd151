import { styleText } from 'node:util';
import { formatSize } from '@pantala/service';
import type { DownloadCount } from './download.ts';

const WIDTH = 40;
/** Milliseconds between two drawings: faster is not seen. */
const REDRAW_INTERVAL = 100;

/** One line on a terminal that is drawn over and over. */
export class ProgressBar {
  readonly #terminal: NodeJS.WriteStream;
  readonly #name: string;
  readonly #began = performance.now();
  #drawn = Number.NEGATIVE_INFINITY;
  #last: DownloadCount | undefined;

  constructor(terminal: NodeJS.WriteStream, url: string) {
    this.#terminal = terminal;
    this.#name = url.split(/[?#]/)[0]?.split('/').at(-1) || url;
  }

  show(count: DownloadCount): void {
    this.#last = count;
    const now = performance.now();
    if (now - this.#drawn < REDRAW_INTERVAL) return;
    this.#drawn = now;
    this.#draw(count);
  }

  /** Draws what was last known and leaves the line. */
  end(): void {
    if (this.#last === undefined) return;
    this.#draw(this.#last);
    this.#terminal.write('\n');
  }

  #draw(count: DownloadCount): void {
    const seconds = (performance.now() - this.#began) / 1000;
    this.#terminal.write(`\r\u001b[K${progressLine(this.#name, count, seconds)}`);
  }
}

/** `name [====>---] 42% 10.0 MiB of 24.0 MiB, 5.0 MiB/s, 3s left`. */
export function progressLine(name: string, count: DownloadCount, seconds: number): string {
  const share = count.bytes === 0 ? 1 : Math.min(1, count.received / count.bytes);
  const filled = Math.round(share * WIDTH);
  const bar = `${'='.repeat(Math.max(0, filled - 1))}${filled > 0 ? '>' : ''}${'-'.repeat(WIDTH - filled)}`;
  const rate = seconds > 0 ? count.received / seconds : 0;
  const left = rate > 0 ? `${Math.ceil((count.bytes - count.received) / rate)}s left` : 'waiting';
  return [
    styleText('bold', name),
    `[${styleText('green', bar)}]`,
    `${Math.floor(share * 100)}%`,
    `${formatSize(count.received)} of ${formatSize(count.bytes)},`,
    `${formatSize(rate)}/s,`,
    left,
  ].join(' ');
}
