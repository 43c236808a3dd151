import type { BlockRun, ByteRange } from '@pantala/base';
import type { StoredTask } from '@pantala/store';

/** A wish for (part of) a resource, from whatever surface it came: proxy, gRPC, lazy read, prefetch. */
export interface DownloadRequest {
  readonly url: string;
  /** Names in lower case; `x-dragonfly-*` and hop-by-hop headers are gone already. */
  readonly requestHeaders: Readonly<Record<string, string>>;
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
  /**
   * Whether all of a range is held and may be read at once; it counts as read then. Else `extents` brings it.
   *
   * @throws `out-of-range`
   */
  takeHeld(range: ByteRange): boolean;
  /**
   * A range straight from the origin with the newest credentials, past the store: for a reader whose `extents` has
   * ended with `disk-full`. A chunk is the reader's until it asks for the next one.
   */
  direct(range: ByteRange, options: { readonly signal: AbortSignal }): AsyncGenerator<Buffer>;
}

/** Another peer that wants to know what this node holds of a task. */
export interface TaskWatcher {
  readonly hostId: string;
  /** It means to fetch everything: a seed deals it its share. */
  readonly bulk: boolean;
  readonly signal: AbortSignal;
}

/** A message of pantala.v1 Peer/WatchTask. One without any runs says that a wait for the origin goes on. */
export interface TaskNewsEvent {
  readonly contentLength: number;
  readonly pieceLength: number;
  readonly held: BlockRun[];
  readonly assigned: BlockRun[];
  readonly deferred: BlockRun[];
}

/** What surfaces need of the swarm. */
export interface Downloader {
  /**
   * Finds or creates the task of a request: length and headers are known when it resolves. `range` (of the
   * request's first reading) or `whole` (all of it will be read at once) let the origin, scheduler and seed begin with it.
   *
   * @throws `origin` with the origin's status when it refuses
   */
  open(
    request: DownloadRequest,
    options: { readonly signal: AbortSignal; readonly range?: ByteRange; readonly whole?: boolean },
  ): Promise<OpenTask>;
}

/** All of the swarm. Disposing it ends every download and takes leave of the schedulers. */
export interface Swarm extends Downloader, AsyncDisposable {
  /**
   * Seeds: fetches blocks from the origin on behalf of a child. Resolves when they are held.
   *
   * @throws `not-found` for a task that was never opened here
   */
  fetchMissing(taskId: string, run: BlockRun, signal: AbortSignal): Promise<void>;
  /** Tells what this node holds of a task, now and as it changes. @throws `not-found` for an unknown task */
  watch(taskId: string, watcher: TaskWatcher): AsyncGenerator<TaskNewsEvent>;
  /** Replaces the list of schedulers. */
  setSchedulers(schedulers: readonly { readonly host: string; readonly port: number }[]): void;
  /** Tells the schedulers that a task is gone from this node, or has changed without a download. */
  changed(taskId: string): void;
}

/** Bytes up to which a demanded range is urgent: fetched at once and in order, whoever else wants it. */
export const URGENT_LENGTH = 4 * 1024 * 1024;
