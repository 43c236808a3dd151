import type { pantalaV1, RpcClient } from '@pantala/api';
import { Backoff, PantalaError, sleep } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { ParentAddress, ParentConnection } from '@pantala/transfer';
import type { DownloadRequest } from '../contract.ts';
import type { Candidate } from '../schedulers/session.ts';
import type { Parent, ParentFetch, ParentListener } from './parent.ts';

export interface PantalaParentOptions {
  readonly candidate: Candidate;
  readonly task: StoredTask;
  readonly hostId: string;
  /** The watcher means to fetch everything. */
  readonly bulk: boolean;
  readonly client: RpcClient<typeof pantalaV1.Peer>;
  readonly pieces: ParentAddress;
  connect(address: ParentAddress, signal: AbortSignal): Promise<ParentConnection>;
  /** The request with the newest credentials. */
  request(): DownloadRequest;
  readonly listener: ParentListener;
}

/** Attempts to hear of a task that a parent does not know yet: it may be about to begin. */
const MAX_UNKNOWN = 6;
/** Milliseconds that a seed may take to ask the origin what a task is. */
const OPEN_TIMEOUT = 30_000;

/** A parent that speaks pantala.v1: its news are watched, and its one kept connection serves every request. */
export class PantalaParent implements Parent {
  readonly candidate: Candidate;
  readonly wholePieces = false;
  readonly fetchesMissing: boolean;
  readonly #options: PantalaParentOptions;
  readonly #stop = new AbortController();
  readonly #watching: Promise<void>;
  /** The request that a seed was last opened with. */
  #opened: { readonly request: DownloadRequest; readonly done: Promise<unknown> } | undefined;

  constructor(options: PantalaParentOptions) {
    this.candidate = options.candidate;
    this.fetchesMissing = options.candidate.seed;
    this.#options = options;
    this.#watching = this.#watch();
    void this.#connectAhead();
  }

  async fetch(fetch: ParentFetch): Promise<void> {
    try {
      await this.#fetchOnce(fetch);
    } catch (thrown) {
      const error = PantalaError.from(thrown);
      const refused = error.code === 'not-found' || error.code === 'internal' || error.code === 'origin';
      if (!fetch.fetchMissing || !refused) throw error;
      // The seed may never have heard of the task, or its credentials may have expired.
      await this.#open(fetch.signal);
      await this.#fetchOnce(fetch);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PantalaError('cancelled', 'the parent is not needed any more'));
    await this.#watching;
  }

  /** Before anything is asked for: the first request finds a connection, and who cannot be reached is known at once. */
  async #connectAhead(): Promise<void> {
    const { pieces, listener } = this.#options;
    try {
      await this.#options.connect(pieces, this.#stop.signal);
    } catch (error) {
      if (!this.#stop.signal.aborted) listener.gone(PantalaError.from(error));
    }
  }

  async #fetchOnce(fetch: ParentFetch): Promise<void> {
    const { task, pieces } = this.#options;
    const connection = await this.#options.connect(pieces, fetch.signal);
    await connection.fetch({
      taskId: task.description.id,
      pieceLength: task.geometry.pieceLength,
      contentLength: task.geometry.contentLength,
      ...fetch,
    });
  }

  /** Hands a seed the request with the newest credentials; once for each. */
  async #open(signal: AbortSignal): Promise<void> {
    const request = this.#options.request();
    if (this.#opened?.request !== request) {
      const { task, client } = this.#options;
      const done = client.openTask(
        {
          taskId: task.description.id,
          url: request.url,
          requestHeader: { ...request.requestHeaders },
          tag: request.tag ?? '',
          application: request.application ?? '',
          filteredQueryParams: [...(request.filteredQueryParams ?? [])],
          pieceLength: BigInt(request.pieceLength ?? 0),
          contentForTaskId: request.contentForTaskId ?? '',
        },
        { signal: this.#stop.signal, deadline: OPEN_TIMEOUT },
      );
      done.catch(() => undefined);
      this.#opened = { request, done };
    }
    const opened = this.#opened;
    try {
      await opened.done;
    } catch (error) {
      if (this.#opened === opened) this.#opened = undefined;
      throw error;
    }
    if (signal.aborted) throw PantalaError.from(signal.reason);
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stop;
    const { client, task, hostId, bulk, listener } = this.#options;
    const pauses = new Backoff({ initial: 50, limit: 1000 });
    let failure = new PantalaError('not-found', `the task is gone from ${this.candidate.hostId}`);
    for (let unknown = 0; unknown < MAX_UNKNOWN; unknown++) {
      try {
        for await (const news of client.watchTask({ taskId: task.description.id, hostId, bulk }, { signal })) {
          listener.news(news);
        }
        break;
      } catch (thrown) {
        if (signal.aborted) return;
        failure = PantalaError.from(thrown);
        if (failure.code !== 'not-found') break;
        listener.news({ held: [], assigned: [], deferred: [] });
        const opening = this.fetchesMissing ? this.#open(signal) : sleep(pauses.next(), signal);
        const hindrance = await opening.then(
          () => undefined,
          (error: unknown) => PantalaError.from(error),
        );
        if (hindrance !== undefined) {
          failure = hindrance;
          break;
        }
      }
    }
    if (!signal.aborted) listener.gone(failure);
  }
}
