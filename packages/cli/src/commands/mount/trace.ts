import type { ControlClient, MountAnswer, MountOrder } from '@pantala/lazyfs/client';
import { print } from '../../output.ts';

/** A line of the worker's trace. */
interface TraceLine {
  readonly time: string;
  readonly blob: string;
  readonly start: number;
  readonly end: number;
  readonly source: string;
  readonly fetched: number;
  readonly urgency: string;
  readonly milliseconds: number;
  readonly files?: readonly string[];
  /** Files that are not named. */
  readonly more?: number;
}

/**
 * Mounts, and shows what is missed, and where it comes from, until it is interrupted. Mount and trace are one request:
 * what is filled in the first moment is shown, too.
 */
export async function tracedMount(
  worker: ControlClient,
  order: MountOrder,
  mounted: (answer: MountAnswer) => void,
  json: boolean,
): Promise<void> {
  const interrupted = new AbortController();
  const stop = () => interrupted.abort();
  process.once('SIGINT', stop).once('SIGTERM', stop);
  try {
    const lines = worker.lines('POST', '/pantala/v1/mounts?trace=true', order, interrupted.signal);
    const first = await lines.next();
    if (first.done !== true) mounted(JSON.parse(first.value) as MountAnswer);
    for await (const line of lines) print(json ? line : shown(line));
  } catch (error) {
    if (!interrupted.signal.aborted) throw error;
  } finally {
    process.removeListener('SIGINT', stop).removeListener('SIGTERM', stop);
  }
}

function shown(line: string): string {
  const event = JSON.parse(line) as TraceLine | { readonly dropped: number };
  if ('dropped' in event) return `${event.dropped} more, too many to show`;
  const { time, urgency, source, fetched, milliseconds, start, end, blob, files = [], more = 0 } = event;
  const cost = fetched === 0 ? 'copied' : `${fetched} bytes fetched`;
  const named = [...files, ...(more > 0 ? [`and ${more} more`] : [])].join(' ');
  const what = `${end - start} bytes at ${start} of blob ${blob.slice(0, 12)}`;
  return `${time} ${urgency.padEnd(8)} ${what} from ${source}: ${cost} in ${milliseconds} ms  ${named}`.trimEnd();
}
