import { Deferred, type Listeners, shown } from '@pantala/base';
import type { FillEvent } from '../cache/index.ts';
import type { FileIndex } from './file-index.ts';

/** Events that wait for a slow reader; what comes beyond is counted. */
const MAX_WAITING = 10_000;
/** Files named in one line. */
const MAX_FILES = 8;

export interface FillTraceOptions {
  /** Blobs that are of interest. Default: all. */
  readonly blobIds?: ReadonlySet<string>;
  /** Names files where there is one. */
  readonly index?: FileIndex;
}

/** Hears of ranges as they are filled, from its making on: what is filled before anybody reads its lines is kept. */
export class FillTrace implements Disposable {
  readonly #subscription: Disposable;
  #waiting: { readonly event: FillEvent; readonly time: Date }[] = [];
  #dropped = 0;
  #something = new Deferred();

  constructor(fills: Pick<Listeners<FillEvent>, 'subscribe'>) {
    this.#subscription = fills.subscribe((event) => {
      if (this.#waiting.length < MAX_WAITING) this.#waiting.push({ event, time: new Date() });
      else this.#dropped++;
      this.#something.resolve();
    });
  }

  /**
   * Lines of JSON until the signal: `{"time","blob","start","end","source","fetched","urgency","milliseconds","files"}`,
   * and `{"dropped"}` where the reader was too slow. Its end is that of the trace.
   */
  async *lines(signal: AbortSignal, { blobIds, index }: FillTraceOptions): AsyncGenerator<string, void, undefined> {
    const wake = () => this.#something.resolve();
    signal.addEventListener('abort', wake, { once: true });
    try {
      while (!signal.aborted) {
        await this.#something.promise;
        this.#something = new Deferred();
        const [taken, dropped] = [this.#waiting, this.#dropped];
        this.#waiting = [];
        this.#dropped = 0;
        for (const { event, time } of taken) {
          if (blobIds?.has(event.blobId) !== false) yield `${JSON.stringify(lineOf(event, time, index))}\n`;
        }
        if (dropped > 0) yield `${JSON.stringify({ dropped })}\n`;
      }
    } finally {
      signal.removeEventListener('abort', wake);
    }
  }

  [Symbol.dispose](): void {
    this.#subscription[Symbol.dispose]();
  }
}

function lineOf({ blobId, range, milliseconds, ...rest }: FillEvent, time: Date, index: FileIndex | undefined): object {
  const files = index?.filesIn(blobId, range) ?? [];
  return {
    time: time.toISOString(),
    blob: blobId,
    ...range,
    ...rest,
    milliseconds: Math.round(milliseconds * 10) / 10,
    ...(index === undefined
      ? {}
      : {
          files: files.slice(0, MAX_FILES).map((file) => shown(index.file(file)?.path ?? '')),
          more: Math.max(0, files.length - MAX_FILES),
        }),
  };
}
