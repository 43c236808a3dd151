import { closeSync, fstatSync, mkdirSync, openSync, renameSync, rmSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';

export interface RotatingFileOptions {
  readonly path: string;
  /** Bytes after which a new file is begun. */
  readonly maxBytes: number;
  /** Older files that are kept, as `PATH.1` (the newest) to `PATH.N`. */
  readonly keep: number;
}

/**
 * A log file that never grows beyond its bounds. Writes are synchronous: a line is there when the call returns, also
 * when the process dies next, and it costs a few microseconds in the page cache. A full disk loses lines, counted
 * and told once there is room again, and stops nothing else.
 */
export class RotatingFile {
  readonly #options: RotatingFileOptions;
  #fd: number;
  #bytes: number;
  #lost = 0;

  /** @throws the system's error when the folder or file cannot be made. */
  constructor(options: RotatingFileOptions) {
    this.#options = options;
    mkdirSync(dirname(options.path), { recursive: true });
    this.#fd = openSync(options.path, 'a', 0o640);
    this.#bytes = fstatSync(this.#fd).size;
  }

  write(line: string): void {
    if (this.#bytes >= this.#options.maxBytes) this.#rotate();
    try {
      if (this.#lost > 0) {
        const note = JSON.stringify({ level: 'warn', msg: `${this.#lost} log lines could not be written` });
        this.#bytes += writeSync(this.#fd, `${note}\n`);
        this.#lost = 0;
      }
      this.#bytes += writeSync(this.#fd, line);
    } catch {
      this.#lost++;
    }
  }

  close(): void {
    closeSync(this.#fd);
  }

  #rotate(): void {
    const { path, keep } = this.#options;
    try {
      rmSync(`${path}.${keep}`, { force: true });
      for (let number = keep - 1; number >= 1; number--) moveIfThere(`${path}.${number}`, `${path}.${number + 1}`);
      if (keep > 0) renameSync(path, `${path}.1`);
      else rmSync(path, { force: true });
      const fd = openSync(path, 'a', 0o640);
      closeSync(this.#fd);
      this.#fd = fd;
    } catch {
      // The old descriptor goes on being written to; the next rotation is tried after as many bytes again.
    }
    this.#bytes = 0;
  }
}

function moveIfThere(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}
