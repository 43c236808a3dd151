import { INODE_SLOT, PAGE, roundUp } from './format.ts';

/**
 * Gives places to inodes and blocks, all relative to `meta_blkaddr`. What is left of a block before something that
 * has to begin a new one is given to later inodes that fit: so inodes stay dense.
 */
export class Space {
  readonly #blockSize: number;
  /** Gaps by their slots of 32 bytes; each lies in one block. */
  readonly #gaps: number[][];
  /** No gap has more slots. */
  #largest = 0;
  /** Slots begin where nid 128 is. */
  #end = PAGE;

  constructor(blockSize: number) {
    this.#blockSize = blockSize;
    this.#gaps = Array.from({ length: blockSize / INODE_SLOT }, () => []);
  }

  /** Behind everything given so far. */
  get end(): number {
    return this.#end;
  }

  /** For `length` bytes that may cross blocks. */
  inode(length: number): number {
    return this.#gap(length) ?? this.#append(length);
  }

  /** For at most a block's bytes, which may not cross blocks: the kernel reads data behind an inode so. */
  inodeWithTail(length: number): number {
    const gap = this.#gap(length);
    if (gap !== undefined) return gap;
    const room = this.#blockSize - (this.#end % this.#blockSize);
    if (room < length) this.#startBlock();
    return this.#append(length);
  }

  /** For whole blocks. */
  blocks(length: number): number {
    this.#startBlock();
    return this.#append(roundUp(length, this.#blockSize));
  }

  #append(length: number): number {
    const begin = this.#end;
    this.#end = roundUp(begin + length, INODE_SLOT);
    return begin;
  }

  #startBlock(): void {
    const next = roundUp(this.#end, this.#blockSize);
    this.#addGap(this.#end, (next - this.#end) / INODE_SLOT);
    this.#end = next;
  }

  #addGap(begin: number, slots: number): void {
    if (slots === 0) return;
    (this.#gaps[slots] as number[]).push(begin);
    if (slots > this.#largest) this.#largest = slots;
  }

  #gap(length: number): number | undefined {
    const wanted = Math.ceil(length / INODE_SLOT);
    for (let slots = wanted; slots <= this.#largest; slots++) {
      const begin = (this.#gaps[slots] as number[]).pop();
      if (begin === undefined) continue;
      this.#addGap(begin + wanted * INODE_SLOT, slots - wanted);
      return begin;
    }
    // Nothing of this size or more: the next search ends sooner.
    if (wanted <= this.#largest) this.#largest = wanted - 1;
    return undefined;
  }
}
