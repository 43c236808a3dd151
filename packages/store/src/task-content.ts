import { type BlockRun, type ByteRange, Geometry, type ReadonlyBitmap } from '@pantala/base';
import { Partial } from './partial.ts';
import { UniformBitmap } from './uniform-bitmap.ts';

/** Who counts the bytes of all tasks. */
export interface Accounts {
  /** Told that the task's blocks take so many bytes more. */
  grew(bytes: number): void;
}

/**
 * Which blocks of a task are held, in memory and without any file. There may be 100,000 of these: only those that are
 * neither complete nor empty have bitmaps.
 */
export class TaskContent {
  readonly contentLength: number;
  readonly pieceLength: number;
  protected partial: Partial | undefined;
  /**
   * The journal has, or will have, the record that it is complete: the whole was compared with its digest, or there is
   * none to compare it with.
   */
  protected proven = false;
  readonly #accounts: Accounts;
  #completedAt: number | undefined;
  #geometry: Geometry | undefined;

  constructor(accounts: Accounts, contentLength: number, pieceLength: number) {
    this.#accounts = accounts;
    this.contentLength = contentLength;
    this.pieceLength = pieceLength;
  }

  get geometry(): Geometry {
    this.#geometry ??= new Geometry(this.contentLength, this.pieceLength);
    return this.#geometry;
  }

  get complete(): boolean {
    return this.#completedAt !== undefined;
  }

  get completedAt(): number | undefined {
    return this.#completedAt;
  }

  get blocks(): ReadonlyBitmap {
    return this.partial?.blocks ?? new UniformBitmap(this.geometry.blockCount, this.complete);
  }

  get provisional(): ReadonlyBitmap {
    return this.partial?.provisional ?? new UniformBitmap(this.geometry.blockCount, false);
  }

  /** Blocks that were held before a power loss or a change from outside, and wait to be verified. */
  get suspect(): ReadonlyBitmap {
    return this.partial?.suspect ?? new UniformBitmap(this.geometry.blockCount, false);
  }

  /** Some of its blocks wait to be verified. */
  get suspected(): boolean {
    return (this.partial?.suspect?.count ?? 0) > 0;
  }

  /** Bytes of all its blocks on disk. */
  get bytes(): number {
    return this.complete ? this.contentLength : (this.partial?.bytes ?? 0);
  }

  has(range: ByteRange): boolean {
    if (range.start < 0 || range.end > this.contentLength) return false;
    if (this.complete || range.start >= range.end) return true;
    return this.partial?.blocks.hasAll(this.geometry.blocksOf(range)) ?? false;
  }

  availableFrom(offset: number): number {
    if (offset < 0 || offset >= this.contentLength) return offset;
    if (this.complete) return this.contentLength;
    if (this.partial === undefined) return offset;
    const block = this.geometry.blockAt(offset);
    const gap = this.partial.blocks.next(false, block);
    return gap === block ? offset : this.geometry.blockRange(gap - 1).end;
  }

  // What the journal says, one record after the other. Runs that are not of this task are ignored.

  recoverBlocks(runs: readonly BlockRun[]): void {
    if (this.complete) return;
    this.hold(this.#within(runs));
  }

  recoverComplete(completedAt: number): void {
    this.proven = true;
    this.finish(completedAt);
    // Nobody may ever ask for it, and there are many.
    this.#geometry = undefined;
  }

  recoverSuspect(runs: readonly BlockRun[]): void {
    this.proven = false;
    this.doubt(this.#within(runs));
  }

  recoverVoid(): void {
    this.#accounts.grew(-this.bytes);
    this.partial = undefined;
    this.proven = false;
    this.#completedAt = undefined;
  }

  /** Every block is held, whether or not the whole was compared with its digest. */
  protected get whole(): boolean {
    return this.complete || this.partial?.blocks.count === this.geometry.blockCount;
  }

  /** Hides the last block, so that nobody has everything before the whole is proven. */
  protected withholdLast(): void {
    this.doubt([{ first: this.geometry.blockCount - 1, count: 1 }]);
  }

  protected part(): Partial {
    this.partial ??= new Partial(this.geometry);
    return this.partial;
  }

  protected hold(runs: readonly BlockRun[]): Partial {
    const partial = this.part();
    for (const run of runs) this.#accounts.grew(partial.hold(run));
    return partial;
  }

  protected hide(runs: readonly BlockRun[]): void {
    for (const run of runs) this.#accounts.grew(this.part().hide(run));
  }

  protected doubt(runs: readonly BlockRun[]): void {
    const partial = this.part();
    if (this.complete) {
      this.#completedAt = undefined;
      // Its bytes are counted already.
      partial.hold({ first: 0, count: this.geometry.blockCount });
    }
    for (const run of runs) this.#accounts.grew(partial.doubt(run));
  }

  protected dropProvisional(): void {
    if (this.partial !== undefined) this.#accounts.grew(this.partial.dropProvisional());
  }

  protected dropSuspect(blocks: readonly number[]): void {
    // What comes in their place may be something else.
    if (blocks.length > 0) this.proven = false;
    for (const block of blocks) this.#accounts.grew(this.part().dropSuspect(block));
  }

  protected finish(completedAt: number): void {
    this.#accounts.grew(this.contentLength - this.bytes);
    this.partial = undefined;
    this.#completedAt = completedAt;
  }

  #within(runs: readonly BlockRun[]): BlockRun[] {
    return runs.filter(({ first, count }) => count > 0 && first + count <= this.geometry.blockCount);
  }
}
