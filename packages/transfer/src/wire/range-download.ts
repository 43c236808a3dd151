import {
  BLOCK_LENGTH,
  type BlockRun,
  Deferred,
  DIGEST_LENGTH,
  Geometry,
  lengthOf,
  monotonicNow,
  PantalaError,
} from '@pantala/base';
import type { RangeRequest } from './contract.ts';
import type { RangeData, RangeDigests } from './messages.ts';

/** What is left of a RangeData whose content is arriving. */
export interface OpenFrame {
  readonly download: RangeDownload;
  first: number;
  count: number;
  bytes: number;
  /** Whole blocks that have arrived and wait for more of the frame, and since when. */
  gathered: number;
  gatheredSince: number;
}

/** One request to a parent, while its answer arrives. */
export class RangeDownload {
  readonly number: number;
  readonly request: RangeRequest;
  readonly done = new Deferred();
  readonly askedAt = monotonicNow();
  /** Time of the last whole block or packet that it got (monotonicNow). */
  progressAt = monotonicNow();
  readonly #geometry: Geometry;
  readonly #end: number;
  #next: number;
  #sawDigests = false;
  /** The receiver's promise that is still open; the next blocks wait for it. */
  #receiving: Promise<void> | undefined;

  constructor(number: number, request: RangeRequest) {
    this.number = number;
    this.request = request;
    this.#geometry = new Geometry(request.contentLength, request.pieceLength);
    this.#next = request.run.first;
    this.#end = request.run.first + request.run.count;
    const fits = request.run.count > 0 && this.#end <= this.#geometry.blockCount;
    const piece = (block: number) => this.#geometry.pieceOfBlock(block);
    if (!fits || piece(request.run.first) !== piece(this.#end - 1)) {
      throw new PantalaError(
        'invalid-argument',
        `blocks ${request.run.first} to ${this.#end - 1} are not of one piece`,
      );
    }
  }

  /** Whether the answer is no longer wanted; what still comes of it is dropped. */
  get over(): boolean {
    return this.done.settled;
  }

  /** @throws `data-loss` when the digests are not those of the piece, or come late or unasked */
  takeDigests(packet: RangeDigests): void {
    this.progressAt = monotonicNow();
    if (this.over) return;
    const piece = this.#geometry.pieceOfBlock(this.request.run.first);
    const expected = this.#geometry.pieceBlocks(piece).count * DIGEST_LENGTH;
    const late = this.#sawDigests || this.#next !== this.request.run.first;
    if (!this.request.wantDigests || late || packet.piece !== piece || packet.digests.length !== expected) {
      throw new PantalaError(
        'data-loss',
        `digests of piece ${packet.piece} in ${packet.digests.length} bytes: not asked for`,
      );
    }
    this.#sawDigests = true;
    try {
      this.request.onDigests?.(packet.digests);
    } catch (error) {
      this.done.reject(error);
    }
  }

  /** @throws `data-loss` when the frame does not go on where the last one ended, or has a wrong length */
  openFrame(packet: RangeData): OpenFrame {
    const { run, bytes } = packet;
    if (run.first !== this.#next || run.count > this.#end - this.#next) {
      throw new PantalaError('data-loss', `${run.count} blocks from ${run.first} on, where ${this.#next} was to come`);
    }
    const expected = lengthOf(this.#geometry.runRange(run));
    if (bytes !== expected) {
      throw new PantalaError('data-loss', `${bytes} bytes for blocks that have ${expected}`);
    }
    this.#next += run.count;
    return { download: this, first: run.first, count: run.count, bytes, gathered: 0, gatheredSince: 0 };
  }

  /**
   * Hands over whole blocks. Undefined when the receiver is through with `data`, else a promise for it (which never
   * rejects: a failing receiver ends the request).
   */
  receive(run: BlockRun, data: Buffer): Promise<void> | undefined {
    this.progressAt = monotonicNow();
    if (this.#receiving === undefined) return this.#call(run, data);
    const turn = this.#receiving.then(() => this.#call(run, data));
    return this.#track(turn);
  }

  /** @throws `data-loss` when blocks are missing */
  finish(): void {
    if (this.over) return;
    if (this.#next !== this.#end) {
      throw new PantalaError('data-loss', `the answer ended before block ${this.#next} of ${this.#end}`);
    }
    if (this.#receiving === undefined) this.done.resolve();
    else void this.#receiving.then(() => this.done.resolve());
  }

  #call(run: BlockRun, data: Buffer): Promise<void> | undefined {
    if (this.over) return undefined;
    try {
      const result = this.request.onBlocks(run, data);
      if (result === undefined) return undefined;
      return this.#track(result);
    } catch (error) {
      this.done.reject(error);
      return undefined;
    }
  }

  #track(work: Promise<void>): Promise<void> {
    const tracked: Promise<void> = work.then(
      () => this.#settle(tracked),
      (error: unknown) => {
        this.done.reject(error);
        this.#settle(tracked);
      },
    );
    this.#receiving = tracked;
    return tracked;
  }

  #settle(work: Promise<void>): void {
    this.progressAt = monotonicNow();
    if (this.#receiving === work) this.#receiving = undefined;
  }
}

/** The whole blocks at the head of a frame's content of which `available` bytes are there. */
export function wholeBlocks(frame: OpenFrame, available: number): { run: BlockRun; bytes: number } {
  if (available >= frame.bytes) return { run: { first: frame.first, count: frame.count }, bytes: frame.bytes };
  const count = Math.floor(available / BLOCK_LENGTH);
  return { run: { first: frame.first, count }, bytes: count * BLOCK_LENGTH };
}
