import type { ByteRange } from '@pantala/base';
import type { StoredTask } from '@pantala/store';

/** A wish for (part of) a resource, from whatever surface it came: proxy, gRPC, lazy read, prefetch. */
export interface DownloadRequest {
  readonly url: string;
  /** Names in lower case; `x-dragonfly-*` and hop-by-hop headers are gone already. */
  readonly requestHeaders: Readonly<Record<string, string>>;
  readonly digest?: string;
  readonly tag?: string;
  readonly application?: string;
  readonly filteredQueryParams?: readonly string[];
  /** Set only when the caller asked for it: it is part of the task id then. */
  readonly pieceLength?: number;
  readonly contentForTaskId?: string;
  readonly priority?: number;
  readonly disableBackToSource?: boolean;
  /** Set by a scheduler that triggers this seed: fetch from the origin, ask nobody. */
  readonly needBackToSource?: boolean;
  /** When only a range is wanted, fetch the rest of the task in the background. */
  readonly prefetch?: boolean;
  /** Who asks: decides whether completing the task writes the log line. */
  readonly reader: 'local' | 'peer' | 'prefetch';
  /** W3C trace id of the request, 32 hex digits. */
  readonly traceId?: string;
}

/** Where the bytes of a task came from so far on this node. */
export interface TrafficCount {
  readonly originBytes: number;
  readonly peerBytes: number;
  /** Bytes that were held before they were asked for. */
  readonly localBytes: number;
}

/** Content that may be read while it arrives. */
export interface OpenTask extends AsyncDisposable {
  readonly task: StoredTask;
  readonly responseHeaders: Readonly<Record<string, string>>;
  /** Whether everything was held when it was opened. */
  readonly hit: boolean;
  readonly traffic: TrafficCount;
  /**
   * Demands a range and yields it piecemeal, in order, as parts that may be read from the store now. Small ranges
   * are urgent; a range of more than URGENT_LENGTH is fetched in the order that is best for the swarm.
   *
   * @throws the reason when the bytes cannot be had: `origin`, `unavailable`, `data-loss`, `disk-full`, …
   */
  extents(range: ByteRange, options: { readonly signal: AbortSignal }): AsyncGenerator<ByteRange>;
}

/** What surfaces need of the swarm. */
export interface Downloader {
  /**
   * Finds or creates the task of a request: length and headers are known when it resolves. `range` (of the
   * request's first reading) lets the scheduler and seed begin with it.
   *
   * @throws `origin` with the origin's status when it refuses
   */
  open(
    request: DownloadRequest,
    options: { readonly signal: AbortSignal; readonly range?: ByteRange },
  ): Promise<OpenTask>;
}

/** Bytes up to which a demanded range is urgent: fetched at once and in order, whoever else wants it. */
export const URGENT_LENGTH = 4 * 1024 * 1024;
