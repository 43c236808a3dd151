import { Bitmap, type BlockRun, DIGEST_LENGTH, Geometry, pieceDigest } from '@pantala/base';
import { CONFIRMED, collectGivers, DigestTable, NONE, UNCONFIRMED } from './digest-table.ts';
import { MAX_PIECES, NEWS_BYTES, RIVAL_LIMIT } from './options.ts';

export interface NumberedDigest {
  readonly number: number;
  /** 32 bytes. */
  readonly digest: Uint8Array;
}

/** Digests of consecutive blocks: 32 bytes for each. */
export interface BlockDigests extends BlockRun {
  readonly digests: Uint8Array;
}

/** Digests of the blocks and pieces of a task, as a host gives them. */
export interface DigestReport {
  readonly contentLength: number;
  readonly pieceLength: number;
  readonly pieces: readonly NumberedDigest[];
  readonly blocks: readonly BlockDigests[];
}

/** Digests as they are handed out; `confirmed` says whether authority stands behind all of them. */
export interface DigestNews extends DigestReport {
  readonly taskId: string;
  readonly confirmed: boolean;
}

/**
 * What a giver's word counts. `seed` is authority. `fetch` is a peer's own fetch from the origin, or its copy that was
 * checked against the digest of the whole: two that agree are authority. `hearsay` is any other copy's list.
 */
export type GiverRank = 'seed' | 'fetch' | 'hearsay';

export interface ReportOutcome {
  /** Items that are new, or confirmed now. */
  readonly confirmed: DigestItems;
  readonly unconfirmed: DigestItems;
  /** Givers that authority contradicts; what they alone gave is gone. */
  readonly liars: readonly string[];
  /** Items that were handed out are gone or changed: everything is to be given anew. */
  readonly rebuilt: boolean;
}

export interface DigestItems {
  readonly pieces: NumberedDigest[];
  readonly blocks: BlockDigests[];
}

interface Giver {
  readonly hostId: string;
  rank: GiverRank;
}

interface Rival {
  readonly giver: number;
  readonly digest: Uint8Array;
}

/** Givers that one book tells apart; it has one byte for each item's. */
const GIVER_LIMIT = 255;

/** The digests of one task: who gave them, which of them authority confirms, and who lied. */
export class DigestBook {
  readonly taskId: string;
  readonly geometry: Geometry;
  readonly #pieces: DigestTable;
  /** Blocks of pieces that are not whole where they come from. */
  readonly #blocks = new Map<number, DigestTable>();
  readonly #givers: Giver[] = [];
  /** Digests of pieces that disagree with the ones in use, by piece. */
  readonly #rivals = new Map<number, Rival[]>();
  #rivalCount = 0;

  /** @throws `invalid-argument` for lengths that no task can have. */
  constructor(taskId: string, contentLength: number, pieceLength: number) {
    this.taskId = taskId;
    this.geometry = new Geometry(contentLength, pieceLength);
    this.#pieces = new DigestTable(Math.min(this.geometry.pieceCount, MAX_PIECES));
  }

  get bytes(): number {
    let bytes = this.#pieces.bytes;
    for (const table of this.#blocks.values()) bytes += table.bytes;
    return bytes + this.#rivalCount * DIGEST_LENGTH;
  }

  /** Whether something in it counts as confirmed. */
  get confirmed(): boolean {
    if (this.#pieces.status.includes(CONFIRMED)) return true;
    return [...this.#blocks.values()].some((table) => table.status.includes(CONFIRMED));
  }

  fits(report: DigestReport): boolean {
    return report.contentLength === this.geometry.contentLength && report.pieceLength === this.geometry.pieceLength;
  }

  /** Takes a giver's digests. Items outside the task, or of the wrong length, are left out. */
  report(hostId: string, rank: GiverRank, report: DigestReport): ReportOutcome {
    const giver = this.#giver(hostId, rank);
    const change = new Change();
    if (giver === undefined) return change;
    for (const run of report.blocks) this.#takeBlocks(giver, run, change);
    for (const piece of report.pieces) {
      if (piece.digest.length === DIGEST_LENGTH && piece.number < this.#pieces.status.length) {
        this.#takePiece(giver, piece.number, piece.digest, change);
      }
    }
    for (const liar of change.liars) this.#dismiss(liar, change);
    return change;
  }

  /** Forgets everything, and returns who gave what was in use. What others had said instead is in use from now on. */
  void(): string[] {
    const guilty = new Set<number>();
    collectGivers(this.#pieces, guilty);
    for (const table of this.#blocks.values()) collectGivers(table, guilty);
    this.#pieces.status.fill(NONE);
    this.#blocks.clear();
    for (const piece of Array.from(this.#rivals.keys())) this.#installRival(piece, guilty);
    return [...guilty].map((giver) => (this.#givers[giver] as Giver).hostId);
  }

  /** Everything that is known, in parts of at most NEWS_BYTES. */
  *news(): Generator<DigestNews> {
    for (const status of [CONFIRMED, UNCONFIRMED]) {
      const pieces: NumberedDigest[] = [];
      for (let number = 0; number < this.#pieces.status.length; number++) {
        if (this.#pieces.statusAt(number) === status) pieces.push({ number, digest: this.#pieces.at(number) });
      }
      const blocks: BlockDigests[] = [];
      for (const [piece, table] of this.#blocks) blocks.push(...this.#blockRuns(piece, table, status));
      yield* this.split({ pieces, blocks }, status === CONFIRMED);
    }
  }

  /** Items as messages of at most about NEWS_BYTES. */
  *split(items: DigestItems, confirmed: boolean): Generator<DigestNews> {
    const { contentLength, pieceLength } = this.geometry;
    const head = { taskId: this.taskId, contentLength, pieceLength, confirmed };
    const step = NEWS_BYTES / DIGEST_LENGTH;
    for (let first = 0; first < items.pieces.length; first += step) {
      yield { ...head, pieces: items.pieces.slice(first, first + step), blocks: [] };
    }
    let blocks: BlockDigests[] = [];
    let bytes = 0;
    for (const run of items.blocks) {
      blocks.push(run);
      bytes += run.digests.length;
      if (bytes < NEWS_BYTES) continue;
      yield { ...head, pieces: [], blocks };
      blocks = [];
      bytes = 0;
    }
    if (blocks.length > 0) yield { ...head, pieces: [], blocks };
  }

  #giver(hostId: string, rank: GiverRank): number | undefined {
    const known = this.#givers.findIndex((giver) => giver.hostId === hostId);
    if (known >= 0) {
      const giver = this.#givers[known] as Giver;
      if (giver.rank === 'hearsay') giver.rank = rank;
      return known;
    }
    if (this.#givers.length >= GIVER_LIMIT) return undefined;
    this.#givers.push({ hostId, rank });
    return this.#givers.length - 1;
  }

  #rank(giver: number): GiverRank {
    return (this.#givers[giver] as Giver).rank;
  }

  #takePiece(giver: number, number: number, digest: Uint8Array, change: Change): void {
    const table = this.#pieces;
    const verdict = this.#weigh(table, number, digest, giver);
    if (verdict.liar !== undefined) change.accuse(verdict.liar, this.#givers);
    if (verdict.rival) {
      this.#keepRival(number, giver, digest, change);
      return;
    }
    if (verdict.status === undefined) return;
    if (verdict.replaces) change.rebuilt = true;
    table.put(number, digest, verdict.status, verdict.giver);
    this.#dropBlocksUnder(number, change);
    change.addPiece(number, Buffer.from(digest), verdict.status === CONFIRMED);
  }

  #takeBlocks(giver: number, run: BlockDigests, change: Change): void {
    const { geometry } = this;
    const end = Math.min(run.first + Math.floor(run.digests.length / DIGEST_LENGTH), geometry.blockCount);
    for (let first = run.first; first < end; ) {
      const piece = geometry.pieceOfBlock(first);
      const whole = geometry.pieceBlocks(piece);
      const stop = Math.min(end, whole.first + whole.count);
      if (piece < this.#pieces.status.length) this.#takeBlocksOfPiece(giver, piece, whole, run, first, stop, change);
      first = stop;
    }
  }

  #takeBlocksOfPiece(
    giver: number,
    piece: number,
    whole: BlockRun,
    run: BlockDigests,
    first: number,
    stop: number,
    change: Change,
  ): void {
    const pieceStatus = this.#pieces.statusAt(piece);
    if (pieceStatus === CONFIRMED || (pieceStatus === UNCONFIRMED && this.#rank(giver) !== 'seed')) return;
    let table = this.#blocks.get(piece);
    if (table === undefined) {
      table = new DigestTable(whole.count);
      this.#blocks.set(piece, table);
    }
    const changed = new Bitmap(whole.count);
    for (let block = first; block < stop; block++) {
      const at = (block - run.first) * DIGEST_LENGTH;
      const digest = run.digests.subarray(at, at + DIGEST_LENGTH);
      const verdict = this.#weigh(table, block - whole.first, digest, giver);
      if (verdict.liar !== undefined) change.accuse(verdict.liar, this.#givers);
      if (verdict.rival || verdict.status === undefined) continue;
      if (verdict.replaces) change.rebuilt = true;
      table.put(block - whole.first, digest, verdict.status, verdict.giver);
      changed.set(block - whole.first);
    }
    for (const part of changed.runs(true)) change.addBlocks(this.#runsOf(table, whole.first, part));
    if (pieceStatus !== NONE && !table.status.includes(NONE)) this.#compareWhole(piece, table, change);
  }

  /** A seed's complete list of blocks against another's piece digest. */
  #compareWhole(piece: number, table: DigestTable, change: Change): void {
    const digest = pieceDigest(table.digests);
    if (!digest.equals(this.#pieces.at(piece))) {
      change.accuse(this.#pieces.giverAt(piece), this.#givers);
      change.rebuilt = true;
    }
    this.#pieces.put(piece, digest, CONFIRMED, table.giverAt(0));
    this.#blocks.delete(piece);
    change.addPiece(piece, digest, true);
  }

  /** Once a piece is whole at its authority its digest says it all. */
  #dropBlocksUnder(piece: number, change: Change): void {
    const table = this.#blocks.get(piece);
    if (table === undefined) return;
    if (this.#pieces.statusAt(piece) === UNCONFIRMED && table.status.includes(CONFIRMED)) return;
    if (!table.status.includes(NONE) && !pieceDigest(table.digests).equals(this.#pieces.at(piece))) {
      const guilty = new Set<number>();
      collectGivers(table, guilty);
      change.rebuilt = true;
      if (this.#pieces.statusAt(piece) === CONFIRMED) {
        for (const giver of guilty) if (this.#rank(giver) !== 'seed') change.accuse(giver, this.#givers);
      }
    }
    this.#blocks.delete(piece);
  }

  /** What a digest means beside the one that is there. */
  #weigh(table: DigestTable, index: number, digest: Uint8Array, giver: number): Verdict {
    const status = table.statusAt(index);
    const rank = this.#rank(giver);
    if (status === NONE)
      return { status: rank === 'seed' ? CONFIRMED : UNCONFIRMED, giver, rival: false, replaces: false };
    const before = table.giverAt(index);
    if (table.at(index).equals(digest)) {
      if (status === CONFIRMED) return NOTHING;
      if (rank === 'seed') return { status: CONFIRMED, giver, rival: false, replaces: false };
      const independent = rank === 'fetch' && this.#rank(before) === 'fetch' && giver !== before;
      return independent ? { status: CONFIRMED, giver: before, rival: false, replaces: false } : NOTHING;
    }
    if (rank === 'seed') {
      // Two seeds that disagree: the origin has changed under them. The first stays; the whole digest will tell.
      if (this.#rank(before) === 'seed') return NOTHING;
      return { status: CONFIRMED, giver, rival: false, replaces: true, liar: before };
    }
    if (this.#rank(before) === 'seed') return { ...NOTHING, liar: giver };
    return { ...NOTHING, rival: status === UNCONFIRMED && rank === 'fetch' };
  }

  #keepRival(number: number, giver: number, digest: Uint8Array, change: Change): void {
    const rivals = this.#rivals.get(number) ?? [];
    if (rivals.some((rival) => rival.giver === giver)) return;
    const ally = rivals.find((rival) => Buffer.compare(rival.digest, digest) === 0);
    if (ally !== undefined) {
      // Two fetches agree against one.
      change.accuse(this.#pieces.giverAt(number), this.#givers);
      change.rebuilt = true;
      this.#pieces.put(number, digest, CONFIRMED, ally.giver);
      this.#blocks.delete(number);
      return;
    }
    if (this.#rivalCount >= RIVAL_LIMIT) return;
    this.#rivalCount++;
    this.#rivals.set(number, [...rivals, { giver, digest: Buffer.from(digest) }]);
  }

  /** Takes away what a liar alone gave. */
  #dismiss(hostId: string, change: Change): void {
    const liar = this.#givers.findIndex((giver) => giver.hostId === hostId);
    if (this.#clear(this.#pieces, liar)) change.rebuilt = true;
    for (const [piece, table] of this.#blocks) {
      if (this.#clear(table, liar)) change.rebuilt = true;
      if (table.status.every((status) => status === NONE)) this.#blocks.delete(piece);
    }
    for (const piece of Array.from(this.#rivals.keys())) this.#installRival(piece, new Set([liar]));
  }

  #clear(table: DigestTable, giver: number): boolean {
    let cleared = false;
    for (let index = 0; index < table.status.length; index++) {
      if (table.statusAt(index) === UNCONFIRMED && table.giverAt(index) === giver) {
        table.status[index] = NONE;
        cleared = true;
      }
    }
    return cleared;
  }

  #installRival(piece: number, excluded: ReadonlySet<number>): void {
    const before = this.#rivals.get(piece) ?? [];
    const rivals = before.filter((rival) => !excluded.has(rival.giver));
    if (this.#pieces.statusAt(piece) === NONE) {
      const next = rivals.shift();
      if (next !== undefined) this.#pieces.put(piece, next.digest, UNCONFIRMED, next.giver);
    }
    this.#rivalCount -= before.length - rivals.length;
    if (rivals.length === 0) this.#rivals.delete(piece);
    else this.#rivals.set(piece, rivals);
  }

  *#blockRuns(piece: number, table: DigestTable, status: number): Generator<BlockDigests> {
    const { first } = this.geometry.pieceBlocks(piece);
    for (const part of this.#runsOf(table, first, { first: 0, count: table.status.length })) {
      if (part.status === status) yield part;
    }
  }

  /** Runs of equal status within a part of a piece, with copies of their digests. */
  *#runsOf(table: DigestTable, firstBlock: number, part: BlockRun): Generator<BlockDigests & { status: number }> {
    const end = part.first + part.count;
    for (let first = part.first; first < end; ) {
      const status = table.statusAt(first);
      let stop = first + 1;
      while (stop < end && table.statusAt(stop) === status) stop++;
      if (status !== NONE) {
        const digests = Buffer.from(table.digests.subarray(first * DIGEST_LENGTH, stop * DIGEST_LENGTH));
        yield { first: firstBlock + first, count: stop - first, digests, status };
      }
      first = stop;
    }
  }
}

interface Verdict {
  /** Undefined: the item stays as it is. */
  readonly status?: number;
  readonly giver: number;
  readonly rival: boolean;
  readonly replaces: boolean;
  readonly liar?: number;
}

const NOTHING: Verdict = { giver: 0, rival: false, replaces: false };

class Change implements ReportOutcome {
  readonly confirmed: DigestItems = { pieces: [], blocks: [] };
  readonly unconfirmed: DigestItems = { pieces: [], blocks: [] };
  readonly liars: string[] = [];
  rebuilt = false;

  accuse(giver: number, givers: readonly Giver[]): void {
    const { hostId } = givers[giver] as Giver;
    if (!this.liars.includes(hostId)) this.liars.push(hostId);
  }

  addPiece(number: number, digest: Uint8Array, confirmed: boolean): void {
    (confirmed ? this.confirmed : this.unconfirmed).pieces.push({ number, digest });
  }

  addBlocks(runs: Iterable<BlockDigests & { status: number }>): void {
    for (const { status, ...run } of runs) (status === CONFIRMED ? this.confirmed : this.unconfirmed).blocks.push(run);
  }
}
