import { connect, type Socket } from 'node:net';
import { type Logger, monotonicNow, PantalaError, type RateLimiter, throwIfAborted } from '@pantala/base';
import { ReadPacing } from '../read-pacing.ts';
import { ARENA_LENGTH, type Arena, type ArenaPool } from './arena.ts';
import type { ParentAddress, ParentConnection, RangeRequest } from './contract.ts';
import type { Message } from './messages.ts';
import type { ParentPoolOptions } from './options.ts';
import { decodePacket, encodePacket } from './packet.ts';
import { type OpenFrame, RangeDownload, wholeBlocks } from './range-download.ts';
import { errorFromWire } from './wire-error.ts';

export interface ParentConnectionDeps {
  readonly arenas: ArenaPool;
  /** Bytes received are paid here before more are read. */
  readonly limiter: RateLimiter | undefined;
  readonly logger: Logger;
}

/** How often the deadlines of open requests are looked at, in milliseconds. */
const WATCH_INTERVAL = 500;

/**
 * Milliseconds that blocks wait for the rest of their frame where nobody waits for them: a frame of 256 KiB from each
 * of eight parents on a link of 200 Mbit/s takes 85. Each part costs a write, a journal record and news to everybody.
 */
const GATHER_TIME = 150;

/** Room that is left for what follows a frame: what is read too far must be moved when the frame is handed over. */
const READ_BEYOND = 16 * 1024;

/** How much longer a request may wait than the connection may be silent: a slow parent serves requests in turn. */
const MAX_TURN_WAIT = 6;

/** Requests at once on one connection: what parents allow (DEFAULT_MAX_REQUESTS) less some that are being cancelled. */
const MAX_OPEN_REQUESTS = 192;

/**
 * Opens a kept connection to a Pantala parent.
 *
 * @throws `unavailable` when nobody answers there; `deadline-exceeded`; `cancelled`
 */
export async function connectParent(
  address: ParentAddress,
  options: Required<ParentPoolOptions>,
  deps: ParentConnectionDeps,
  signal?: AbortSignal,
): Promise<ParentConnection> {
  const connection = new Connection(address, options, deps);
  try {
    await connection.open(signal);
  } catch (error) {
    await connection[Symbol.asyncDispose]();
    throw error;
  }
  return connection;
}

class Connection implements ParentConnection {
  readonly address: ParentAddress;
  readonly #name: string;
  readonly #options: Required<ParentPoolOptions>;
  readonly #deps: ParentConnectionDeps;
  readonly #socket: Socket;
  readonly #abort = new AbortController();
  readonly #downloads = new Map<number, RangeDownload>();
  #failure: PantalaError | undefined;
  #nextNumber = 1;
  /** Where bytes arrive and wait to be whole; none while nothing is asked for. */
  #arena: Arena | undefined;
  #filled = 0;
  /** Where in the arena begins what was not handed over yet. */
  #unused = 0;
  #frame: OpenFrame | undefined;
  /** Arenas that receivers still use; with two of them reading pauses. */
  #pinned = 0;
  readonly #pacing = new ReadPacing(() => this.#goOn());
  /** Time of the last whole block or packet. */
  #progressAt = monotonicNow();
  #watch: NodeJS.Timeout | undefined;
  #idle: NodeJS.Timeout | undefined;

  constructor(address: ParentAddress, options: Required<ParentPoolOptions>, deps: ParentConnectionDeps) {
    this.address = address;
    this.#name = `${address.host}:${address.port}`;
    this.#options = options;
    this.#deps = deps;
    this.#socket = connect({
      host: address.host,
      port: address.port,
      noDelay: true,
      keepAlive: true,
      onread: { buffer: () => this.#target(), callback: (length, bytes) => this.#received(length, bytes) },
    });
    this.#socket.on('error', (error) => this.#fail(this.#broken(error)));
    this.#socket.on('close', () => this.#fail(this.#broken(undefined)));
  }

  get usable(): boolean {
    return this.#failure === undefined;
  }

  open(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (error?: PantalaError) => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', onAbort);
        this.#socket.removeListener('connect', onConnect);
        this.#socket.removeListener('close', onClose);
        if (error === undefined) resolve();
        else reject(error);
      };
      const onConnect = () => {
        this.#rest();
        settle();
      };
      const onClose = () => settle(this.#failure);
      const onAbort = () => settle(PantalaError.from(signal?.reason));
      const timer = setTimeout(() => {
        const { connectTimeout } = this.#options;
        settle(new PantalaError('deadline-exceeded', `${this.#name} did not accept in ${connectTimeout} ms`));
      }, this.#options.connectTimeout);
      this.#socket.once('connect', onConnect);
      this.#socket.once('close', onClose);
      signal?.addEventListener('abort', onAbort, { once: true });
      if (signal?.aborted === true) onAbort();
    });
  }

  async fetch(request: RangeRequest): Promise<void> {
    throwIfAborted(request.signal);
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#downloads.size >= MAX_OPEN_REQUESTS) {
      throw new PantalaError('resource-exhausted', `${MAX_OPEN_REQUESTS} requests wait at ${this.#name} already`);
    }
    const download = new RangeDownload(this.#nextNumber, request);
    this.#nextNumber = (this.#nextNumber + 1) % 0x1_0000_0000;
    const packet = encodePacket({
      kind: 'range-request',
      request: download.number,
      taskId: request.taskId,
      pieceLength: request.pieceLength,
      run: request.run,
      wantDigests: request.wantDigests,
      fetchMissing: request.fetchMissing,
    });
    const onAbort = () => download.done.reject(PantalaError.from(request.signal.reason));
    request.signal.addEventListener('abort', onAbort, { once: true });
    this.#downloads.set(download.number, download);
    this.#wake();
    this.#socket.write(packet);
    try {
      await download.done.promise;
    } finally {
      request.signal.removeEventListener('abort', onAbort);
      // Still in the map: the parent does not know yet that the answer is no longer wanted, and it must end first.
      if (this.#downloads.has(download.number) && this.usable) {
        this.#socket.write(encodePacket({ kind: 'cancel-range', request: download.number }));
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#fail(new PantalaError('cancelled', `the connection to ${this.#name} was closed`));
    if (this.#socket.closed) return;
    await new Promise<void>((resolve) => this.#socket.once('close', () => resolve()));
  }

  /** Where the next bytes go. */
  #target(): Buffer {
    if (this.#arena === undefined) return this.#deps.arenas.idleBytes;
    const frame = this.#frame;
    const end = frame === undefined ? ARENA_LENGTH : this.#unused + frame.bytes + READ_BEYOND;
    return this.#arena.bytes.subarray(this.#filled, Math.max(end, this.#filled + READ_BEYOND));
  }

  /** Returns false to pause reading. */
  #received(length: number, bytes: Uint8Array): boolean {
    if (this.#failure !== undefined) return false;
    const arena = this.#arena ?? this.#deps.arenas.take();
    if (this.#arena === undefined) {
      this.#arena = arena;
      arena.bytes.set(bytes.subarray(0, length), 0);
    }
    this.#filled += length;
    arena.pins++;
    try {
      const used = this.#consume(arena);
      arena.pins--;
      this.#keepTail(arena, used);
      this.#pay(length);
    } catch (error) {
      this.#fail(PantalaError.from(error));
      return false;
    }
    return this.#pinned < 2 && !this.#rests(length);
  }

  /** Whether reading pauses a moment, because what comes is awaited by nobody and comes in crumbs. */
  #rests(length: number): boolean {
    const frame = this.#frame;
    if (frame === undefined || !frame.download.request.gather) return false;
    return this.#pacing.rests(length, frame.bytes - (this.#filled - this.#unused));
  }

  /** Reads on, unless receivers hold it back. */
  #goOn(): void {
    if (this.usable && this.#pinned < 2 && !this.#pacing.resting) this.#socket.resume();
  }

  /** Everything whole in the arena; returns where the rest begins. */
  #consume(arena: Arena): number {
    let at = this.#unused;
    for (;;) {
      const frame = this.#frame;
      if (frame === undefined) {
        const packet = decodePacket(arena.bytes, at, this.#filled);
        if (packet === undefined) return at;
        at = packet.end;
        this.#handle(packet.message);
        continue;
      }
      const { run, bytes } = wholeBlocks(frame, this.#filled - at);
      if (run.count === 0 || this.#waitsForMore(frame, run.count)) return at;
      this.#deliver(arena, frame.download, run, arena.bytes.subarray(at, at + bytes));
      at += bytes;
      frame.first += run.count;
      frame.count -= run.count;
      frame.bytes -= bytes;
      frame.gathered = 0;
      if (frame.bytes === 0) this.#frame = undefined;
    }
  }

  /** Blocks of a frame that does not go on. The rest stays in its place: the kernel has been told where to go on. */
  #handOverGathered(): void {
    const arena = this.#arena;
    if (arena === undefined || this.#frame === undefined || this.#frame.gathered === 0) return;
    arena.pins++;
    try {
      this.#unused = this.#consume(arena);
    } catch (error) {
      this.#fail(PantalaError.from(error));
    }
    arena.pins--;
  }

  #waitsForMore(frame: OpenFrame, count: number): boolean {
    if (!frame.download.request.gather || count === frame.count || !this.#hasRoom) return false;
    if (count === frame.gathered) return monotonicNow() - frame.gatheredSince < GATHER_TIME;
    const now = monotonicNow();
    if (frame.gathered === 0) frame.gatheredSince = now;
    frame.gathered = count;
    frame.download.progressAt = now;
    this.#progressAt = now;
    return now - frame.gatheredSince < GATHER_TIME;
  }

  /** Whether the arena takes more; else what is in it must be handed over first. */
  get #hasRoom(): boolean {
    return this.#filled < ARENA_LENGTH;
  }

  #handle(message: Message): void {
    if (message.kind !== 'range-data') this.#progressAt = monotonicNow();
    if (message.kind === 'error') throw errorFromWire(message.code, message.message, this.#name);
    const number = 'request' in message ? message.request : undefined;
    const download = number === undefined ? undefined : this.#downloads.get(number);
    if (download === undefined) throw new PantalaError('data-loss', `${this.#name} answers what was not asked`);
    switch (message.kind) {
      case 'range-digests':
        download.takeDigests(message);
        break;
      case 'range-data':
        this.#frame = download.openFrame(message);
        break;
      case 'range-end':
        download.finish();
        this.#forget(download);
        break;
      case 'range-error':
        this.#forget(download);
        download.done.reject(errorFromWire(message.code, message.message, this.#name));
        break;
      default:
        throw new PantalaError('data-loss', `a parent sends no ${message.kind}`);
    }
  }

  #deliver(arena: Arena, download: RangeDownload, run: { first: number; count: number }, data: Buffer): void {
    this.#progressAt = monotonicNow();
    const receiving = download.receive(run, data);
    if (receiving === undefined) return;
    arena.pins++;
    void receiving.then(() => this.#unpin(arena));
  }

  /** Moves what is not whole yet to where the next bytes go on. */
  #keepTail(arena: Arena, used: number): void {
    this.#unused = 0;
    const rest = this.#filled - used;
    if (arena.pins === 0) {
      if (rest > 0 && used > 0) arena.bytes.copyWithin(0, used, this.#filled);
      this.#filled = rest;
      if (rest === 0 && this.#frame === undefined && this.#downloads.size === 0) {
        this.#deps.arenas.give(arena);
        this.#arena = undefined;
      }
      return;
    }
    this.#pinned++;
    const next = this.#deps.arenas.take();
    arena.bytes.copy(next.bytes, 0, used, this.#filled);
    this.#arena = next;
    this.#filled = rest;
  }

  /** A pinned arena that receivers are through with goes back; reading goes on. */
  #unpin(arena: Arena): void {
    arena.pins--;
    if (arena.pins > 0 || arena === this.#arena) return;
    this.#pinned--;
    this.#deps.arenas.give(arena);
    this.#goOn();
  }

  /** Counts as one more pinned arena until the limit allows the bytes. */
  #pay(length: number): void {
    const { limiter } = this.#deps;
    if (limiter === undefined || limiter.tryAcquire(length)) return;
    this.#pinned += 2;
    const resume = () => {
      this.#pinned -= 2;
      this.#progressAt = monotonicNow();
      this.#goOn();
    };
    limiter.acquire(length, this.#abort.signal).then(resume, resume);
  }

  #forget(download: RangeDownload): void {
    this.#downloads.delete(download.number);
    if (this.#downloads.size === 0) this.#rest();
  }

  #wake(): void {
    this.#watch ??= setInterval(() => this.#checkSilence(), WATCH_INTERVAL);
  }

  #rest(): void {
    this.#idle ??= setTimeout(() => {
      if (this.#downloads.size > 0) return;
      this.#fail(new PantalaError('cancelled', `the connection to ${this.#name} was idle`));
    }, this.#options.idleTimeout).unref();
    this.#idle.refresh();
  }

  /**
   * A parent that completes no block of any request is given up; one request that others overtake only ends itself.
   * While receivers hold reading back it is not the parent that is silent.
   */
  #checkSilence(): void {
    if (this.#downloads.size === 0) {
      clearInterval(this.#watch);
      this.#watch = undefined;
      return;
    }
    this.#handOverGathered();
    const now = monotonicNow();
    if (this.#pinned > 0) this.#progressAt = now;
    for (const download of this.#downloads.values()) {
      if (this.#pinned > 0) download.progressAt = now;
      const { silenceTimeout, fetchSilenceTimeout } = this.#options;
      const limit = download.request.fetchMissing ? fetchSilenceTimeout : silenceTimeout;
      const own = now - download.progressAt;
      const any = now - Math.max(this.#progressAt, download.askedAt);
      if (any >= limit) {
        this.#fail(new PantalaError('unavailable', `${this.#name} owes blocks and was silent for ${limit} ms`));
        return;
      }
      if (own < limit * MAX_TURN_WAIT || download.over) continue;
      download.done.reject(new PantalaError('unavailable', `${this.#name} answers others, and not this request`));
    }
  }

  #broken(cause: Error | undefined): PantalaError {
    const reason = cause === undefined ? 'closed it' : cause.message;
    return new PantalaError('unavailable', `the connection to ${this.#name} broke: ${reason}`, { cause });
  }

  #fail(error: PantalaError): void {
    if (this.#failure !== undefined) return;
    this.#failure = error;
    this.#abort.abort(error);
    clearInterval(this.#watch);
    clearTimeout(this.#idle);
    this.#pacing[Symbol.dispose]();
    this.#socket.destroy();
    const downloads = Array.from(this.#downloads.values());
    this.#downloads.clear();
    for (const download of downloads) download.done.reject(error);
    if (this.#arena !== undefined && this.#arena.pins === 0) this.#deps.arenas.give(this.#arena);
    this.#arena = undefined;
  }
}
