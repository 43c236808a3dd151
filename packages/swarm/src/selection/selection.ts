import { Bitmap, type BlockRun, type Geometry, lengthOf } from '@pantala/base';
import { type Deal, Holdings } from './holdings.ts';
import { DEFERRED_RANK, hashText, nothingBetterFrom, rankOf } from './ranking.ts';
import { overlap, UNIT_BLOCKS, unitBlocks, unitCount, withinPieces } from './units.ts';

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

/** Milliseconds that a unit dealt to another peer stays that peer's, counted from when nothing better was left. */
export const PATIENCE = 500;
/** Milliseconds after which one of the last requests is given to a second parent as well. */
export const END_GAME_AGE = 400;
/** Requests still out when the end game may begin. */
export const END_GAME_REQUESTS = 16;
/** Units looked at in one choice, from the first missing one: 2 GiB, so that a choice costs microseconds. */
export const WINDOW_UNITS = 8192;
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
  readonly #salt: number;
  /** Held, or being fetched by someone (parents or origin). */
  readonly #taken: Bitmap;
  readonly #held: Bitmap;
  readonly #checkable: Bitmap;
  /** Blocks of each unit that are checkable. */
  readonly #checkableCounts: Uint8Array;
  /** Pieces whose digest is known. */
  readonly #listable: Bitmap;
  #needDigests = true;
  #piecesHelp = true;
  /** Blocks of each unit that are not taken. */
  readonly #left: Uint8Array;
  /** Parents that have the whole of each unit. */
  readonly #holders: Uint16Array;
  readonly #parents = new Map<string, Parent>();
  readonly #requests = new Map<number, BlockRequest & { doubled: boolean }>();
  #nextId = 1;
  #cursor = 0;
  #prefix = 0;

  constructor(geometry: Geometry, options: SelectionOptions) {
    this.#geometry = geometry;
    this.#salt = hashText(options.host);
    this.#taken = new Bitmap(geometry.blockCount);
    this.#held = new Bitmap(geometry.blockCount);
    this.#checkable = new Bitmap(geometry.blockCount);
    this.#listable = new Bitmap(geometry.pieceCount);
    const units = unitCount(geometry);
    this.#left = new Uint8Array(units);
    this.#checkableCounts = new Uint8Array(units);
    for (let unit = 0; unit < units; unit++) this.#left[unit] = unitBlocks(geometry, unit).count;
    this.#holders = new Uint16Array(units);
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
    for (let block = run.first; block < run.first + run.count; block++) {
      if (!this.#checkable.set(block)) continue;
      const unit = Math.floor(block / UNIT_BLOCKS);
      this.#checkableCounts[unit] = (this.#checkableCounts[unit] ?? 0) + 1;
    }
    this.#nobodyIsBarren();
  }

  /** A list of the digests of this piece's blocks can be checked: whoever has the whole piece can give it. */
  listable(piece: number): void {
    this.#listable.set(piece);
    this.#nobodyIsBarren();
  }

  /** Whether only blocks whose digests can be had are asked for (the default); false where nobody gives digests. */
  needDigests(need: boolean): void {
    this.#needDigests = need;
  }

  /** Whether a reader is helped by whole pieces of upstream's peers (the default): not where they stay invisible. */
  piecesHelpReaders(help: boolean): void {
    this.#piecesHelp = help;
  }

  /** No digest is known any more. */
  nothingCheckable(): void {
    this.#checkable.clearAll();
    this.#checkableCounts.fill(0);
    this.#listable.clearAll();
  }

  /** These blocks are in the store. */
  held(run: BlockRun): void {
    this.take(run);
    this.#held.setRun(run);
  }

  /** These blocks are fetched by other means (the origin): nobody is to be asked for them. */
  take(run: BlockRun): void {
    for (let block = run.first; block < run.first + run.count; block++) {
      if (!this.#taken.set(block)) continue;
      const unit = Math.floor(block / UNIT_BLOCKS);
      this.#left[unit] = (this.#left[unit] ?? 1) - 1;
    }
  }

  /** Blocks that were held are not any more. */
  drop(run: BlockRun): void {
    for (let block = run.first; block < run.first + run.count; block++) this.#held.clear(block);
    this.#prefix = Math.min(this.#prefix, run.first);
    this.release(run);
  }

  /** Nothing is held any more. */
  reset(): void {
    this.drop({ first: 0, count: this.#geometry.blockCount });
    for (const request of this.#requests.values()) this.take(request.run);
  }

  /** Blocks that were taken and did not come are missing again. */
  release(run: BlockRun): void {
    for (let block = run.first; block < run.first + run.count; block++) {
      if (this.#held.has(block) || !this.#taken.has(block)) continue;
      this.#nobodyIsBarren();
      this.#taken.clear(block);
      const unit = Math.floor(block / UNIT_BLOCKS);
      this.#left[unit] = (this.#left[unit] ?? 0) + 1;
      if (unit < this.#cursor) this.#cursor = unit;
    }
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

  /** A parent that has all of a piece. */
  holderOf(piece: number): string | undefined {
    const blocks = this.#geometry.pieceBlocks(piece);
    for (const { id, holdings } of this.#parents.values()) if (holdings.blocks.hasAll(blocks)) return id;
    return undefined;
  }

  /** End of the blocks that are in the store without a gap from the first. */
  heldPrefix(): number {
    this.#prefix = this.#held.next(false, this.#prefix);
    return this.#prefix;
  }

  /** The parts of a run that are neither held nor being fetched. */
  missing(within: BlockRun): Generator<BlockRun> {
    return this.#taken.runs(false, within);
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
    if (this.#needDigests) this.#chooseLists(bulk, now, requests);
    if (requests.length === 0 && this.#requests.size <= END_GAME_REQUESTS) this.#chooseAgain(now, requests);
    return requests;
  }

  #chooseUrgent(wanted: BlockRun, now: number, requests: BlockRequest[]): void {
    for (const gap of this.#taken.runs(false, wanted)) {
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
    if (this.#isUnderWay(piece)) return block + 1;
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

  /** Whether any block of a run is being fetched by someone. */
  #isUnderWay(run: BlockRun): boolean {
    for (const taken of this.#taken.runs(true, run)) if (!this.#held.hasAll(taken)) return true;
    return false;
  }

  /** Among the parents that have a block, the one with the least to do; a seed only when no other can. */
  #quickest(block: number): Parent | undefined {
    let best: Parent | undefined;
    let bestLoad = Number.POSITIVE_INFINITY;
    for (const parent of this.#parents.values()) {
      if (parent.traits.wholePieces || !parent.holdings.blocks.has(block) || !this.#canCheck(parent, block)) continue;
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
    const chosen = this.#bestUnits(parent, wanted, room, now);
    parent.barrenSince = chosen.length === 0 ? now : undefined;
    chosen.sort((a, b) => a - b);
    let open: BlockRun | undefined;
    const flush = (run: BlockRun): void => {
      for (const part of withinPieces(this.#geometry, run, REQUEST_BLOCKS)) {
        requests.push(this.#ask(parent, part, false, now));
      }
    };
    for (const unit of chosen) {
      const blocks = overlap(unitBlocks(this.#geometry, unit), wanted);
      if (blocks === undefined) continue;
      for (const gap of this.#taken.runs(false, blocks)) {
        if (open !== undefined && open.first + open.count === gap.first) {
          open = { first: open.first, count: open.count + gap.count };
          continue;
        }
        if (open !== undefined) flush(open);
        open = gap;
      }
    }
    if (open !== undefined) flush(open);
  }

  /** The `room` units that are best asked of this parent, in no order. */
  #bestUnits(parent: Parent, wanted: BlockRun, room: number, now: number): number[] {
    this.#advanceCursor();
    const start = Math.max(this.#cursor, Math.floor(wanted.first / UNIT_BLOCKS));
    const end = Math.min(Math.ceil((wanted.first + wanted.count) / UNIT_BLOCKS), start + WINDOW_UNITS);
    const units: number[] = [];
    const ranks: number[] = [];
    const patient = now - parent.busyAt < PATIENCE;
    for (let unit = start; unit < end; unit++) {
      if (units.length === room && nothingBetterFrom(unit, ranks[room - 1] as number, parent.holdings)) break;
      if (this.#left[unit] === 0 || !this.#canGive(parent, unit)) continue;
      const rank = rankOf(this.#salt, parent.holdings, unit, this.#holders[unit] ?? 0, patient);
      if (units.length === room && rank >= (ranks[room - 1] as number)) continue;
      let at = units.length;
      while (at > 0 && (ranks[at - 1] as number) > rank) at--;
      units.splice(at, 0, unit);
      ranks.splice(at, 0, rank);
      if (units.length > room) {
        units.length = room;
        ranks.length = room;
      }
    }
    while (ranks.length > 0 && ranks.at(-1) === Number.POSITIVE_INFINITY) {
      ranks.pop();
      units.pop();
    }
    if (ranks.length > 0 && (ranks[0] as number) < DEFERRED_RANK) parent.busyAt = now;
    return units;
  }

  /** Whether the parent has every missing block of a unit and their digests can be had. */
  #canGive(parent: Parent, unit: number): boolean {
    const first = unit * UNIT_BLOCKS;
    const end = Math.min(first + UNIT_BLOCKS, this.#geometry.blockCount);
    if (parent.holdings.hasUnit(unit)) {
      if (!this.#needDigests || this.#checkableCounts[unit] === end - first) return true;
      // Most units lie in one piece, whose list comes with them.
      const piece = this.#geometry.pieceOfBlock(first);
      if (this.#hasList(parent, piece) && piece === this.#geometry.pieceOfBlock(end - 1)) return true;
    }
    for (let block = first; block < end; block++) {
      if (this.#taken.has(block)) continue;
      if (!parent.holdings.blocks.has(block) || !this.#canCheck(parent, block)) return false;
    }
    return true;
  }

  /** Whether a block's digest is known, or comes with the block as this parent has the whole piece. */
  #canCheck(parent: Parent, block: number): boolean {
    if (!this.#needDigests || this.#checkable.has(block)) return true;
    return this.#hasList(parent, this.#geometry.pieceOfBlock(block));
  }

  #hasList(parent: Parent, piece: number): boolean {
    return this.#listable.has(piece) && parent.holdings.hasPiece(piece);
  }

  #choosePieces(parent: Parent, wanted: BlockRun, now: number, requests: BlockRequest[]): void {
    this.#advanceCursor();
    const end = wanted.first + wanted.count;
    const first = this.#geometry.pieceOfBlock(Math.max(this.#cursor * UNIT_BLOCKS, wanted.first));
    for (let piece = first; piece * this.#geometry.blocksPerPiece < end; piece++) {
      if (parent.outstanding >= parent.budget && parent.outstanding > 0) return;
      const blocks = this.#geometry.pieceBlocks(piece);
      // A part that is held already is no hindrance: nobody else may be there for the rest.
      if (!parent.holdings.blocks.hasAll(blocks) || this.#held.hasAll(blocks) || this.#isUnderWay(blocks)) continue;
      requests.push(this.#ask(parent, blocks, false, now));
    }
  }

  /**
   * One block of each piece near the beginning whose list nobody gives otherwise: who has the whole piece has dealt
   * all that is missing of it to others, and these have only parts.
   */
  #chooseLists(wanted: BlockRun, now: number, requests: BlockRequest[]): void {
    const first = Math.max(this.#cursor * UNIT_BLOCKS, wanted.first);
    const end = Math.min(this.#geometry.pieceOfBlock(first) + LISTS_AHEAD, this.#geometry.pieceCount);
    for (let piece = this.#geometry.pieceOfBlock(first); piece < end; piece++) {
      const blocks = overlap(this.#geometry.pieceBlocks(piece), wanted);
      if (blocks === undefined || !this.#listable.has(piece)) continue;
      const block = this.#taken.next(false, blocks.first);
      if (block >= blocks.first + blocks.count || this.#checkable.has(block) || this.#isListAsked(piece)) continue;
      const parent = [...this.#parents.values()].find((other) => this.#canCheck(other, block));
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

  #advanceCursor(): void {
    while (this.#cursor < this.#left.length && this.#left[this.#cursor] === 0) this.#cursor++;
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
