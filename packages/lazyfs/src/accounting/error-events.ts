import type { LogFields, Logger } from '@pantala/base';

/** Errors kept, and characters of all of them: as many as nydusd keeps. */
const MAX_ERRORS = 500;
const MAX_SIZE = 50 * 1024;

/** The last errors of a program, for whoever asks instead of reading its log. */
export class ErrorEvents {
  readonly #errors: string[] = [];
  #size = 0;
  #total = 0;
  #totalSize = 0;

  add(text: string): void {
    const kept = text.slice(0, MAX_SIZE);
    this.#total++;
    this.#totalSize += kept.length;
    this.#errors.push(kept);
    this.#size += kept.length;
    while (this.#errors.length > MAX_ERRORS || this.#size > MAX_SIZE) this.#size -= this.#errors.shift()?.length ?? 0;
  }

  /** As nydusd's `/api/v1/daemon/events`. */
  list(): object {
    return {
      max_errors: MAX_ERRORS,
      total_errors: this.#total,
      max_size: MAX_SIZE,
      total_size: this.#totalSize,
      errors: [...this.#errors],
    };
  }

  /** A logger that keeps the errors that go through it. */
  watching(logger: Logger): Logger {
    return {
      // Not wrapped, so that lines go on to name whoever logs.
      ...logger,
      error: (message, fields) => {
        this.add(lineOf(message, fields));
        logger.error(message, fields);
      },
      child: (fields) => this.watching(logger.child(fields)),
    };
  }
}

function lineOf(message: string, fields: LogFields = {}): string {
  const shown = Object.entries(fields).map(([name, value]) => {
    const text = value instanceof Error ? value.message : typeof value === 'string' ? value : JSON.stringify(value);
    return `${name}=${text}`;
  });
  return `${new Date().toISOString()} ${[message, ...shown].join(' ')}`;
}
