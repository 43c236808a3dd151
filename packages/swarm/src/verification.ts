import {
  Bitmap,
  BLOCK_LENGTH,
  type BlockRun,
  blockDigest,
  DIGEST_LENGTH,
  type Geometry,
  pieceDigest,
} from '@pantala/base';
import { overlap } from './selection/units.ts';

/** Whether a seed, or two fetches that agree, stand for a digest, or only a peer that nobody has confirmed. */
export type Authority = 'confirmed' | 'unconfirmed';

/**
 * What a block's digest says of it.
 * - `checked`: it is what authority says.
 * - `provisional`: it is what an unconfirmed peer says; good once the whole content's digest is right.
 * - `wrong`: it is something else.
 * - `unknown`: no digest is known yet, or none that may be relied on.
 */
export type Verdict = 'checked' | 'provisional' | 'wrong' | 'unknown';

/** The blocks at the beginning of a run that have the same verdict. */
export interface Judgement {
  readonly verdict: Verdict;
  readonly count: number;
}

interface KnownPiece {
  whole: Buffer | undefined;
  wholeAuthority: Authority;
  /** Digests of its blocks, valid where `known` says so. */
  blocks: Buffer | undefined;
  known: Bitmap;
  confirmed: Bitmap;
}

/**
 * Pieces whose block digests are kept at once. 256 of the smallest are 2 MiB of digests, of the largest 32 MiB. The
 * oldest whose piece digest is known is forgotten first: a parent gives its list again.
 */
export const MAX_LISTED_PIECES = 256;

/**
 * The digests of one task that came from authority, and what they say of blocks. Lists of block digests may come
 * from anybody: they count when they match the piece's digest.
 */
export class Verification {
  readonly #geometry: Geometry;
  readonly #hasContentDigest: boolean;
  readonly #pieces = new Map<number, KnownPiece>();

  /** @param hasContentDigest whether the whole can be checked at the end: only then unconfirmed digests are of use */
  constructor(geometry: Geometry, hasContentDigest: boolean) {
    this.#geometry = geometry;
    this.#hasContentDigest = hasContentDigest;
  }

  /** Digests of blocks from the scheduler. Ignores what lies outside the task or does not have 32 bytes a block. */
  acceptBlocks(run: BlockRun, digests: Uint8Array, authority: Authority): void {
    if (digests.length !== run.count * DIGEST_LENGTH || run.first + run.count > this.#geometry.blockCount) return;
    let first = run.first;
    while (first < run.first + run.count) {
      const piece = this.#geometry.pieceOfBlock(first);
      const part = overlap(this.#geometry.pieceBlocks(piece), {
        first,
        count: run.first + run.count - first,
      }) as BlockRun;
      const from = (first - run.first) * DIGEST_LENGTH;
      this.#set(piece, part, digests.subarray(from, from + part.count * DIGEST_LENGTH), authority);
      first += part.count;
    }
  }

  /** The digest of a whole piece from the scheduler. */
  acceptPiece(piece: number, digest: Uint8Array, authority: Authority): void {
    if (digest.length !== DIGEST_LENGTH || piece >= this.#geometry.pieceCount) return;
    const entry = this.#entry(piece);
    if (entry.whole !== undefined && entry.wholeAuthority === 'confirmed' && authority === 'unconfirmed') return;
    entry.whole = Buffer.from(digest);
    entry.wholeAuthority = authority;
  }

  /**
   * Digests of all blocks of a piece, from anybody.
   * - `checked`: they match the piece's digest, and count from now on.
   * - `wrong`: they do not, so whoever gave them lies.
   * - `unknown`: no digest of the piece is known that could tell.
   */
  acceptList(piece: number, digests: Uint8Array): 'checked' | 'wrong' | 'unknown' {
    const entry = this.#pieces.get(piece);
    if (entry?.whole === undefined) return 'unknown';
    const blocks = this.#geometry.pieceBlocks(piece);
    if (digests.length !== blocks.count * DIGEST_LENGTH || !pieceDigest(digests).equals(entry.whole)) {
      return this.#counts(entry.wholeAuthority) ? 'wrong' : 'unknown';
    }
    this.#set(piece, blocks, digests, entry.wholeAuthority);
    this.#forgetLists();
    return 'checked';
  }

  /** Whether a parent's list of block digests is of use: the piece's digest is known, not all of these blocks'. */
  needsList(run: BlockRun): boolean {
    const piece = this.#geometry.pieceOfBlock(run.first);
    const entry = this.#pieces.get(piece);
    if (entry?.whole === undefined) return false;
    const start = this.#geometry.pieceBlocks(piece).first;
    return !entry.known.hasAll({ first: run.first - start, count: run.count });
  }

  /** Whether each block of a run within one piece can be judged, given a list from its parent where one is needed. */
  canJudge(run: BlockRun): boolean {
    const piece = this.#geometry.pieceOfBlock(run.first);
    const entry = this.#pieces.get(piece);
    if (entry === undefined) return false;
    if (entry.whole !== undefined && this.#counts(entry.wholeAuthority)) return true;
    const start = this.#geometry.pieceBlocks(piece).first;
    const known = this.#hasContentDigest ? entry.known : entry.confirmed;
    return known.hasAll({ first: run.first - start, count: run.count });
  }

  /** What the digests of a run's blocks (32 bytes each, of one piece) say of the first of them. */
  judge(run: BlockRun, digests: Buffer): Judgement {
    const piece = this.#geometry.pieceOfBlock(run.first);
    const entry = this.#pieces.get(piece);
    const start = run.first - this.#geometry.pieceBlocks(piece).first;
    const first = this.#judgeBlock(entry, start, digests, 0);
    let count = 1;
    while (count < run.count && this.#judgeBlock(entry, start + count, digests, count) === first) count++;
    return { verdict: first, count };
  }

  /** Everything from the scheduler is void. */
  forget(): void {
    this.#pieces.clear();
  }

  /** Digests of a piece that is held are of no more use. */
  forgetPiece(piece: number): void {
    this.#pieces.delete(piece);
  }

  #judgeBlock(entry: KnownPiece | undefined, index: number, digests: Buffer, at: number): Verdict {
    if (entry?.blocks === undefined || !entry.known.has(index)) return 'unknown';
    const expected = entry.blocks.compare(
      digests,
      at * DIGEST_LENGTH,
      (at + 1) * DIGEST_LENGTH,
      index * DIGEST_LENGTH,
      (index + 1) * DIGEST_LENGTH,
    );
    const confirmed = entry.confirmed.has(index);
    if (!confirmed && !this.#hasContentDigest) return 'unknown';
    if (expected !== 0) return 'wrong';
    return confirmed ? 'checked' : 'provisional';
  }

  #counts(authority: Authority): boolean {
    return authority === 'confirmed' || this.#hasContentDigest;
  }

  #set(piece: number, run: BlockRun, digests: Uint8Array, authority: Authority): void {
    const entry = this.#entry(piece);
    const blocks = this.#geometry.pieceBlocks(piece);
    entry.blocks ??= Buffer.alloc(blocks.count * DIGEST_LENGTH);
    for (let at = 0; at < run.count; at++) {
      const index = run.first - blocks.first + at;
      if (entry.confirmed.has(index) && authority === 'unconfirmed') continue;
      entry.blocks.set(digests.subarray(at * DIGEST_LENGTH, (at + 1) * DIGEST_LENGTH), index * DIGEST_LENGTH);
      entry.known.set(index);
      if (authority === 'confirmed') entry.confirmed.set(index);
    }
  }

  #entry(piece: number): KnownPiece {
    const found = this.#pieces.get(piece);
    if (found !== undefined) return found;
    const { count } = this.#geometry.pieceBlocks(piece);
    const entry: KnownPiece = {
      whole: undefined,
      wholeAuthority: 'unconfirmed',
      blocks: undefined,
      known: new Bitmap(count),
      confirmed: new Bitmap(count),
    };
    this.#pieces.set(piece, entry);
    return entry;
  }

  #forgetLists(): void {
    const listed = [...this.#pieces.values()].filter((entry) => entry.blocks !== undefined);
    for (const entry of listed) {
      if (listed.length <= MAX_LISTED_PIECES) return;
      if (entry.whole === undefined) continue;
      entry.blocks = undefined;
      entry.known = new Bitmap(entry.known.length);
      entry.confirmed = new Bitmap(entry.confirmed.length);
      return;
    }
  }
}

/** BLAKE3 of each block of `data` (the bytes of `run`), 32 bytes each, into one buffer. */
export function digestBlocks(geometry: Geometry, run: BlockRun, data: Buffer): Buffer {
  const digests = Buffer.allocUnsafe(run.count * DIGEST_LENGTH);
  let offset = 0;
  for (let at = 0; at < run.count; at++) {
    const last = at === run.count - 1;
    const length = last ? data.length - offset : blockLength(geometry, run.first + at);
    blockDigest(data.subarray(offset, offset + length)).copy(digests, at * DIGEST_LENGTH);
    offset += length;
  }
  return digests;
}

function blockLength(geometry: Geometry, block: number): number {
  if (geometry.pieceLength % BLOCK_LENGTH === 0 && block < geometry.blockCount - 1) return BLOCK_LENGTH;
  const range = geometry.blockRange(block);
  return range.end - range.start;
}
