import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { AbortScope, abortable, type ByteRange, lengthOf, PantalaError } from '@pantala/base';
import { sendFileRange } from '@pantala/linux';
import type { DataLease } from '@pantala/store';
import type { OpenTask } from '@pantala/swarm';

/** Bytes of an answer that begins only when all of it is there: until then a failure can still have a status. */
export const GATHERED_BODY = 256 * 1024;
/**
 * Bytes of a body that is read and written with its head at once. Larger ones go by sendfile although that costs one
 * more call: buffers of 128 KiB make the collector run every 200 requests, 10 ms each time.
 */
export const SMALL_BODY = 16 * 1024;
/** Bytes handed to the kernel at a time: the reader must take that much within STALL_LIMIT. */
const STRIDE = 4 * 1024 * 1024;
/** Milliseconds without progress after which a reader counts as gone: its lease keeps a file from eviction. */
const STALL_LIMIT = 5 * 60_000;

/** Sends ranges of one task as (parts of) the body of one answer, while they arrive. */
export class BodySender implements Disposable {
  readonly #open: OpenTask;
  readonly #res: ServerResponse;
  readonly #signal: AbortSignal;
  #lease: DataLease | undefined;

  constructor(open: OpenTask, res: ServerResponse, signal: AbortSignal) {
    this.#open = open;
    this.#res = res;
    this.#signal = signal;
  }

  /** Whether all of a range is held already. @throws `out-of-range` */
  takeHeld(range: ByteRange): boolean {
    return this.#open.takeHeld(range);
  }

  /** Resolves when all of a range is held. @throws what `OpenTask.extents` throws */
  async gather(range: ByteRange): Promise<void> {
    for await (const _ of this.#open.extents(range, { signal: this.#signal }));
  }

  /** The bytes of a small range that was gathered. */
  async read(range: ByteRange): Promise<Buffer> {
    return this.#open.task.read(range);
  }

  /**
   * Sends a range of any size.
   *
   * @param head called before the first byte: what can't be had at all gets a status of its own
   */
  async send(range: ByteRange, head: () => void | Promise<void>): Promise<void> {
    let sent = range.start;
    try {
      for await (const extent of this.#open.extents(range, { signal: this.#signal })) {
        if (sent === range.start) await head();
        await this.sendHeld(extent);
        sent = extent.end;
      }
    } catch (error) {
      if (PantalaError.from(error).code !== 'disk-full') throw error;
      if (sent === range.start) await head();
      for await (const chunk of this.#open.direct({ start: sent, end: range.end }, { signal: this.#signal })) {
        await this.write(chunk);
        sent += chunk.length;
      }
    }
    if (sent !== range.end) {
      throw new PantalaError('internal', `${sent - range.start} of ${lengthOf(range)} bytes were there`);
    }
  }

  /** Writes bytes that are no part of the task, or not from the store; resolves when they are on their way. */
  async write(data: Buffer | string): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#res.write(data, (error) => (error ? reject(error) : resolve()));
    await this.#within(() => promise);
  }

  [Symbol.dispose](): void {
    this.#lease?.[Symbol.dispose]();
  }

  /** Sends a range that is held, after what was flushed before it. */
  async sendHeld(extent: ByteRange): Promise<void> {
    this.#lease ??= this.#open.task.lease();
    const { fd } = this.#lease;
    const socket = await this.#socket();
    for (let start = extent.start; start < extent.end; start += STRIDE) {
      const end = Math.min(start + STRIDE, extent.end);
      await this.#within((signal) => sendFileRange(socket, fd, start, end, { signal }));
    }
  }

  /** The answer's connection; a pipelined request has none until those before it are answered. */
  async #socket() {
    if (this.#res.socket === null) {
      await abortable(once(this.#res, 'socket'), this.#signal);
    }
    const { socket } = this.#res;
    if (socket === null) throw new PantalaError('cancelled', 'the client went away');
    // Bytes that go by sendfile are no activity to Node; STALL_LIMIT watches instead.
    socket.setTimeout(0);
    return socket;
  }

  /** Does a part of the work in which the reader must not stand still. */
  async #within(work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    using scope = new AbortScope([this.#signal], { timeout: STALL_LIMIT, what: 'sending to the client' });
    await abortable(work(scope.signal), scope.signal);
  }
}
