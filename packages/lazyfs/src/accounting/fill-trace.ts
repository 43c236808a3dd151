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
  readonly signal: AbortSignal;
}

/**
 * Lines of JSON as ranges are filled, until the signal: `{"time","blob","start","end","source","fetched","urgency",
 * "milliseconds","files"}`, and `{"dropped"}` where the reader was too slow.
 */
export async function* fillTrace(
  fills: Pick<Listeners<FillEvent>, 'subscribe'>,
  { blobIds, index, signal }: FillTraceOptions,
): AsyncGenerator<string, void, undefined> {
  let waiting: FillEvent[] = [];
  let dropped = 0;
  let something = new Deferred();
  const wake = () => something.resolve();
  signal.addEventListener('abort', wake, { once: true });
  using _ = fills.subscribe((event) => {
    if (blobIds?.has(event.blobId) === false) return;
    if (waiting.length < MAX_WAITING) waiting.push(event);
    else dropped++;
    wake();
  });
  try {
    while (!signal.aborted) {
      await something.promise;
      something = new Deferred();
      const events = waiting;
      waiting = [];
      for (const event of events) yield `${JSON.stringify(lineOf(event, index))}\n`;
      if (dropped > 0) yield `${JSON.stringify({ dropped })}\n`;
      dropped = 0;
    }
  } finally {
    signal.removeEventListener('abort', wake);
  }
}

function lineOf({ blobId, range, milliseconds, ...rest }: FillEvent, index: FileIndex | undefined): object {
  const files = index?.filesIn(blobId, range) ?? [];
  return {
    time: new Date().toISOString(),
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
