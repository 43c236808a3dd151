import { type BlockRun, type Geometry, lengthOf } from '@pantala/base';
import { BlockBook } from './block-book.ts';
import { type Deal, Holdings } from './holdings.ts';
import { KnownDigests } from './known-digests.ts';
import { hashText } from './ranking.ts';
import { UnitChoice } from './unit-choice.ts';
import { overlap, UNIT_BLOCKS, unitCount, withinPieces } from './units.ts';

/** What is to be asked of a parent: blocks of one piece. */
export interface BlockRequest {
  readonly id: number;
  readonly parent: string;
  readonly run: BlockRun;
  readonly urgent: boolean;
  /** Milliseconds, as given to `next`. */
  readonly askedAt: number;
}

export interface ParentTraits {
  /** It deals out its units and is spared what others can give. */
  readonly seed: boolean;
  /** It can be asked only for whole pieces (upstream's protocol). */
  readonly wholePieces: boolean;
}

export interface SelectionOptions {
  /** Which host chooses: decides ties, so that equal peers choose differently. */
  readonly host: string;
}

/** Milliseconds after which one of the last requests is given to a second parent as well. */
export const END_GAME_AGE = 400;
/** Requests still out when the end game may begin. */
export const END_GAME_REQUESTS = 16;
/** Blocks of one request: 1 MiB, the largest frame of the piece protocol. */
export const REQUEST_BLOCKS = 64;
/** Milliseconds for which a parent that had nothing to ask for is not looked at again, unless something changes. */
const BARREN_TIME = 50;
/** Pieces ahead whose digest lists are asked for by themselves: the window in which a crowd moves. */
export const LISTS_AHEAD = 4;
/** Bytes outstanding at a parent before its speed is known: two units, one on its way and one being made ready. */
export const FIRST_BUDGET = 512 * 1024;

interface Parent {
  readonly id: string;
  readonly traits: ParentTraits;
  readonly holdings: Holdings;
  outstanding: number;
  budget: number;
  /** When it last was asked for something better than a deferred unit. */
  busyAt: number;
  /** It had nothing to ask for at this time, and nothing has changed since. */
  barrenSince: number | undefined;
}

/**
 * Which blocks to ask of which parent next. Knows what is held, asked for and offered; does no I/O and has no clock:
 * the same events give the same requests.
 */
export class Selection {
  readonly #geometry: Geometry;
  readonly #book: BlockBook;
  readonly #digests: KnownDigests;
  readonly #units: UnitChoice;
  #piecesHelp = true;
  /** Parents that have the whole of each unit. */
  readonly #holders: Uint16Array;
  readonly #parents = new Map<string, Parent>();
  readonly #requests = new Map<number, BlockRequest & { doubled: boolean }>();
  #nextId = 1;

  constructor(geometry: Geometry, options: SelectionOptions) {
    this.#geometry = geometry;
    this.#book = new BlockBook(geometry);
    this.#digests = new KnownDigests(geometry);
    this.#holders = new Uint16Array(unitCount(geometry));
    this.#units = new UnitChoice({
      geometry,
      book: this.#book,
      digests: this.#digests,
      holders: this.#holders,
      salt: hashText(options.host),
    });
  }

  get outstanding(): number {
    return this.#requests.size;
  }

  addParent(id: string, traits: ParentTraits): void {
    if (this.#parents.has(id)) return;
    const holdings = new Holdings(this.#geometry);
    const busyAt = Number.NEGATIVE_INFINITY;
    this.#parents.set(id, {
      id,
      traits,
      holdings,
      outstanding: 0,
      budget: FIRST_BUDGET,
      busyAt,
      barrenSince: undefined,
    });
  }

  /** Its requests stay out until `ended` is called for each. */
  removeParent(id: string): void {
    const parent = this.#parents.get(id);
    if (parent === undefined) return;
    this.#parents.delete(id);
    for (let unit = 0; unit < this.#holders.length; unit++) {
      if (parent.holdings.hasUnit(unit)) this.#holders[unit] = (this.#holders[unit] ?? 1) - 1;
    }
  }

  parentHolds(id: string, run: BlockRun): void {
    const parent = this.#parents.get(id);
    if (parent === undefined) return;
    parent.barrenSince = undefined;
    parent.holdings.add(run, (unit) => {
      this.#holders[unit] = (this.#holders[unit] ?? 0) + 1;
    });
  }

  parentDeals(id: string, run: BlockRun, deal: Deal): void {
    const parent = this.#parents.get(id);
    if (parent === undefined) return;
    parent.barrenSince = undefined;
    parent.holdings.deal(run, deal);
  }

  /** Bytes that may be outstanding at a parent. */
  setBudget(id: string, bytes: number): void {
    const parent = this.#parents.get(id);
    if (parent !== undefined) parent.budget = bytes;
  }

  /** The digests of these blocks can be had, so they may be asked of anybody. */
  checkable(run: BlockRun): void {
    this.#digests.addBlocks(run);
    this.#nobodyIsBarren();
  }

  /** A list of the digests of this piece's blocks can be checked: whoever has the whole piece can give it. */
  listable(piece: number): void {
    this.#digests.addPiece(piece);
    this.#nobodyIsBarren();
  }

  /** Whether only blocks whose digests can be had are asked for (the default); false where nobody gives digests. */
  needDigests(need: boolean): void {
    this.#digests.needed = need;
  }

  /** Whether a reader is helped by whole pieces of upstream's peers (the default): not where they stay invisible. */
  piecesHelpReaders(help: boolean): void {
    this.#piecesHelp = help;
  }

  /** No digest is known any more. */
  nothingCheckable(): void {
    this.#digests.clear();
  }

  /** These blocks are in the store. */
  held(run: BlockRun): void {
    this.#book.hold(run);
  }

  /** These blocks are fetched by other means (the origin): nobody is to be asked for them. */
  take(run: BlockRun): void {
    this.#book.take(run);
  }

  /** Blocks that were held are not any more. */
  drop(run: BlockRun): void {
    if (this.#book.drop(run)) this.#nobodyIsBarren();
  }

  /** Nothing is held any more. */
  reset(): void {
    this.drop({ first: 0, count: this.#geometry.blockCount });
    for (const request of this.#requests.values()) this.take(request.run);
  }

  /** Blocks that were taken and did not come are missing again. */
  release(run: BlockRun): void {
    if (this.#book.release(run)) this.#nobodyIsBarren();
  }

  /** A request was answered or has failed: what did not come may be asked for again. */
  ended(id: number): void {
    const request = this.#requests.get(id);
    if (request === undefined) return;
    this.#requests.delete(id);
    const parent = this.#parents.get(request.parent);
    if (parent !== undefined) parent.outstanding -= this.#bytes(request.run);
    const twin = request.doubled && this.#isAsked(request.run);
    if (!twin) this.release(request.run);
  }

  /** Whether a parent is known to have this block. */
  isOffered(block: number): boolean {
    for (const parent of this.#parents.values()) {
      if (parent.holdings.blocks.has(block) && (!parent.traits.wholePieces || this.#readersTakePieces())) return true;
    }
    return false;
  }

  /** The parts of a run that are neither held nor being fetched, and that no parent can give at present. */
  *unoffered(within: BlockRun): Generator<BlockRun> {
    const givers = [...this.#parents.values()].filter(({ holdings }) => holdings.blocks.count > 0);
    for (const gap of this.#book.missing(within)) {
      if (givers.length === 0) {
        yield gap;
        continue;
      }
      const end = gap.first + gap.count;
      let first = gap.first;
      for (let block = gap.first; block < end; block++) {
        if (!givers.some((parent) => this.#canGive(parent, block))) continue;
        if (first < block) yield { first, count: block - first };
        first = block + 1;
      }
      if (first < end) yield { first, count: end - first };
    }
  }

  /** A parent that has all of a piece. */
  holderOf(piece: number): string | undefined {
    const blocks = this.#geometry.pieceBlocks(piece);
    for (const { id, holdings } of this.#parents.values()) if (holdings.blocks.hasAll(blocks)) return id;
    return undefined;
  }

  /** End of the blocks that are in the store without a gap from the first. */
  heldPrefix(): number {
    return this.#book.heldPrefix();
  }

  /** The parts of a run that are neither held nor being fetched. */
  missing(within: BlockRun): Generator<BlockRun> {
    return this.#book.missing(within);
  }

  /**
   * What to ask for now: blocks that readers wait for first and in order, then (in bulk) units by rarity.
   *
   * @param urgent what readers wait for, in their order
   * @param bulk blocks that are wanted in whatever order is best for all
   * @param now milliseconds
   */
  next(urgent: Iterable<BlockRun>, bulk: BlockRun | undefined, now: number): BlockRequest[] {
    const requests: BlockRequest[] = [];
    for (const run of urgent) this.#chooseUrgent(run, now, requests);
    if (bulk === undefined) return requests;
    const parents = [...this.#parents.values()].sort((a, b) => a.outstanding / a.budget - b.outstanding / b.budget);
    for (const parent of parents) {
      if (parent.traits.wholePieces) this.#choosePieces(parent, bulk, now, requests);
      else this.#chooseUnits(parent, bulk, now, requests);
    }
    // From one parent alone the lists come with the first units of their pieces.
    if (this.#digests.needed && this.#parents.size > 1) this.#chooseLists(bulk, now, requests);
    if (requests.length === 0 && this.#requests.size <= END_GAME_REQUESTS) this.#chooseAgain(now, requests);
    return requests;
  }

  #chooseUrgent(wanted: BlockRun, now: number, requests: BlockRequest[]): void {
    for (const gap of this.#book.missing(wanted)) {
      const end = gap.first + gap.count;
      let first = gap.first;
      while (first < end) {
        const parent = this.#quickest(first);
        if (parent === undefined) {
          first = this.#chooseUrgentPiece(first, now, requests);
          continue;
        }
        const stop = Math.min(end, parent.holdings.blocks.next(false, first));
        for (const run of withinPieces(this.#geometry, { first, count: stop - first }, REQUEST_BLOCKS)) {
          requests.push(this.#ask(parent, run, true, now));
        }
        first = stop;
      }
    }
  }

  /** A whole piece for the sake of one block. Returns where to look on. */
  #chooseUrgentPiece(block: number, now: number, requests: BlockRequest[]): number {
    if (!this.#readersTakePieces()) return block + 1;
    const piece = this.#geometry.pieceBlocks(this.#geometry.pieceOfBlock(block));
    if (this.#book.isUnderWay(piece)) return block + 1;
    for (const parent of this.#parents.values()) {
      if (!parent.traits.wholePieces || !parent.holdings.blocks.hasAll(piece)) continue;
      requests.push(this.#ask(parent, piece, true, now));
      return piece.first + piece.count;
    }
    return block + 1;
  }

  /** Whether megabytes may be fetched for a few blocks: not where a seed fetches these alone. */
  #readersTakePieces(): boolean {
    if (!this.#piecesHelp) return false;
    for (const { traits } of this.#parents.values()) if (traits.seed && !traits.wholePieces) return false;
    return true;
  }

  /** Among the parents that have a block, the one with the least to do; a seed only when no other can. */
  #quickest(block: number): Parent | undefined {
    let best: Parent | undefined;
    let bestLoad = Number.POSITIVE_INFINITY;
    for (const parent of this.#parents.values()) {
      if (parent.traits.wholePieces || !this.#canGive(parent, block)) continue;
      const load = parent.outstanding / parent.budget + (parent.traits.seed ? 0.5 : 0);
      if (load < bestLoad) {
        best = parent;
        bestLoad = load;
      }
    }
    return best;
  }

  #chooseUnits(parent: Parent, wanted: BlockRun, now: number, requests: BlockRequest[]): void {
    const room = Math.floor((parent.budget - parent.outstanding) / (UNIT_BLOCKS * this.#blockBytes()));
    if (room <= 0 || (parent.barrenSince !== undefined && now - parent.barrenSince < BARREN_TIME)) return;
    const runs = this.#units.runs(parent, wanted, room, now);
    parent.barrenSince = runs.length === 0 ? now : undefined;
    for (const run of runs) {
      for (const part of withinPieces(this.#geometry, run, REQUEST_BLOCKS)) {
        requests.push(this.#ask(parent, part, false, now));
      }
    }
  }

  #canGive({ holdings }: Parent, block: number): boolean {
    return holdings.blocks.has(block) && this.#digests.canCheck(holdings, block);
  }

  #choosePieces(parent: Parent, wanted: BlockRun, now: number, requests: BlockRequest[]): void {
    const end = wanted.first + wanted.count;
    const first = this.#geometry.pieceOfBlock(Math.max(this.#book.firstUnit() * UNIT_BLOCKS, wanted.first));
    for (let piece = first; piece * this.#geometry.blocksPerPiece < end; piece++) {
      if (parent.outstanding >= parent.budget && parent.outstanding > 0) return;
      const blocks = this.#geometry.pieceBlocks(piece);
      // A part that is held already is no hindrance: nobody else may be there for the rest.
      if (!parent.holdings.blocks.hasAll(blocks) || this.#book.hasAll(blocks)) continue;
      if (this.#book.isUnderWay(blocks)) continue;
      requests.push(this.#ask(parent, blocks, false, now));
    }
  }

  /**
   * One block of each piece near the beginning whose list nobody gives otherwise: who has the whole piece has dealt
   * all that is missing of it to others, and these have only parts.
   */
  #chooseLists(wanted: BlockRun, now: number, requests: BlockRequest[]): void {
    const first = Math.max(this.#book.firstUnit() * UNIT_BLOCKS, wanted.first);
    const end = Math.min(this.#geometry.pieceOfBlock(first) + LISTS_AHEAD, this.#geometry.pieceCount);
    for (let piece = this.#geometry.pieceOfBlock(first); piece < end; piece++) {
      const blocks = overlap(this.#geometry.pieceBlocks(piece), wanted);
      if (blocks === undefined || !this.#digests.hasPiece(piece)) continue;
      const block = this.#book.nextMissing(blocks.first);
      if (block >= blocks.first + blocks.count || this.#digests.hasBlock(block) || this.#isListAsked(piece)) continue;
      const parent = [...this.#parents.values()].find((other) => this.#digests.canCheck(other.holdings, block));
      if (parent !== undefined) requests.push(this.#ask(parent, { first: block, count: 1 }, false, now));
    }
  }

  #isListAsked(piece: number): boolean {
    for (const { run } of this.#requests.values()) if (this.#geometry.pieceOfBlock(run.first) === piece) return true;
    return false;
  }

  /** The end game: an old request is given to another parent as well. */
  #chooseAgain(now: number, requests: BlockRequest[]): void {
    for (const request of Array.from(this.#requests.values())) {
      if (request.doubled || now - request.askedAt < END_GAME_AGE) continue;
      for (const parent of this.#parents.values()) {
        if (parent.id === request.parent || parent.traits.wholePieces || parent.outstanding >= parent.budget) continue;
        if (!parent.holdings.blocks.hasAll(request.run)) continue;
        request.doubled = true;
        const again = this.#ask(parent, request.run, request.urgent, now);
        const entry = this.#requests.get(again.id);
        if (entry !== undefined) entry.doubled = true;
        requests.push(again);
        break;
      }
    }
  }

  #ask(parent: Parent, run: BlockRun, urgent: boolean, now: number): BlockRequest {
    const request = { id: this.#nextId++, parent: parent.id, run, urgent, askedAt: now, doubled: false };
    this.#requests.set(request.id, request);
    parent.outstanding += this.#bytes(run);
    this.take(run);
    return request;
  }

  #isAsked(run: BlockRun): boolean {
    for (const request of this.#requests.values()) {
      if (request.run.first === run.first && request.run.count === run.count) return true;
    }
    return false;
  }

  #nobodyIsBarren(): void {
    for (const parent of this.#parents.values()) parent.barrenSince = undefined;
  }

  #bytes(run: BlockRun): number {
    return lengthOf(this.#geometry.runRange(run));
  }

  #blockBytes(): number {
    return Math.min(this.#geometry.contentLength, this.#geometry.pieceLength) < 16_384
      ? this.#geometry.contentLength
      : 16_384;
  }
}
