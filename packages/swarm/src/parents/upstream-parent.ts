import type { dfdaemonV2, RpcClient } from '@pantala/api';
import { PantalaError, type RateLimiter } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import { fetchUpstreamPiece, type ParentAddress } from '@pantala/transfer';
import type { Candidate } from '../schedulers/session.ts';
import type { Parent, ParentFetch, ParentListener } from './parent.ts';

export interface UpstreamParentOptions {
  readonly candidate: Candidate;
  readonly task: StoredTask;
  readonly hostId: string;
  readonly client: RpcClient<typeof dfdaemonV2.DfdaemonUpload>;
  readonly listener: ParentListener;
  readonly limiter: RateLimiter | undefined;
}

/** A Dragonfly peer: says by SyncPieces which pieces it has, gives each by a connection of its own. */
export class UpstreamParent implements Parent {
  readonly candidate: Candidate;
  readonly wholePieces = true;
  readonly fetchesMissing = false;
  readonly #options: UpstreamParentOptions;
  readonly #stop = new AbortController();
  readonly #watching: Promise<void>;
  readonly #addresses = new Map<number, ParentAddress>();

  constructor(options: UpstreamParentOptions) {
    this.candidate = options.candidate;
    this.#options = options;
    this.#watching = this.#watch();
  }

  async fetch(fetch: ParentFetch): Promise<void> {
    const { task, limiter } = this.#options;
    const number = task.geometry.pieceOfBlock(fetch.run.first);
    const address = this.#addresses.get(number);
    if (address === undefined) throw new PantalaError('not-found', `piece ${number} was not announced`);
    const piece = await fetchUpstreamPiece(address, {
      taskId: task.description.id,
      piece: number,
      range: task.geometry.pieceRange(number),
      signal: fetch.signal,
      ...(limiter === undefined ? {} : { limiter }),
    });
    await fetch.onBlocks(fetch.run, piece.content);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PantalaError('cancelled', 'the parent is not needed any more'));
    await this.#watching;
  }

  async #watch(): Promise<void> {
    const { signal } = this.#stop;
    const { client, task, hostId, listener, candidate } = this.#options;
    const { geometry } = task;
    const missing: number[] = [];
    for (let piece = 0; piece < geometry.pieceCount; piece++) {
      if (!task.blocks.hasAll(geometry.pieceBlocks(piece))) missing.push(piece);
    }
    try {
      const request = { hostId, taskId: task.description.id, interestedPieceNumbers: missing };
      for await (const { number, ip, tcpPort } of client.syncPieces(request, { signal })) {
        if (number >= geometry.pieceCount || tcpPort === undefined) continue;
        this.#addresses.set(number, { host: ip === '' ? candidate.address.host : ip, port: tcpPort });
        listener.news({ held: [geometry.pieceBlocks(number)], assigned: [], deferred: [] });
      }
      // It said all that it has to say; what it holds stays there to be fetched.
      if (this.#addresses.size === 0) throw new PantalaError('not-found', `${candidate.hostId} has no piece of it`);
    } catch (error) {
      if (!signal.aborted) listener.gone(PantalaError.from(error));
    }
  }
}
