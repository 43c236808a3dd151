import { abortable, type BlockRun, type ByteRange, Deferred, type Geometry, lengthOf } from '@pantala/base';
import { URGENT_LENGTH } from './contract.ts';

/** Bytes ahead of a reader that are asked for when its range is neither small nor most of the content. */
const READ_AHEAD = URGENT_LENGTH;

/** What one reader waits for: a range, and how far it has come. */
export class Demand {
  readonly range: ByteRange;
  /** Fetched in the order that is best for the swarm. */
  readonly bulk: boolean;
  /** Milliseconds (monotonic) since which it waits for the byte at `position`. */
  waitingSince: number;
  #position: number;
  #wake = new Deferred();
  #spoiled: unknown;

  constructor(range: ByteRange, bulk: boolean, now: number) {
    this.range = range;
    this.bulk = bulk;
    this.waitingSince = now;
    this.#position = range.start;
  }

  get position(): number {
    return this.#position;
  }

  /** The reader has the bytes before `position`. */
  advance(position: number, now: number): void {
    this.#position = position;
    this.waitingSince = now;
  }

  /** Blocks that are to come first and in order. */
  urgentBlocks(geometry: Geometry): BlockRun | undefined {
    if (this.bulk) return undefined;
    const start = this.#position;
    const end = Math.min(this.range.end, start + READ_AHEAD);
    return start < end ? geometry.blocksOf({ start, end }) : undefined;
  }

  /** @throws what `fail` was called with; the reason of `signal` */
  async wait(signal: AbortSignal): Promise<void> {
    await abortable(this.#wake.promise, signal);
  }

  wake(): void {
    const woken = this.#wake;
    this.#wake = new Deferred();
    woken.resolve();
  }

  fail(error: unknown): void {
    const woken = this.#wake;
    this.#wake = new Deferred();
    woken.reject(error);
  }

  /** What the reader has of it is wrong: it must not go on, even if it is not waiting now. */
  spoil(error: unknown): void {
    if (this.#position === this.range.start) return;
    this.#spoiled = error;
    this.fail(error);
  }

  /** @throws what `spoil` was called with */
  throwIfSpoiled(): void {
    if (this.#spoiled !== undefined) throw this.#spoiled;
  }
}

/** What all readers of one task wait for. */
export class Demands {
  readonly #geometry: Geometry;
  readonly #demands = new Set<Demand>();

  constructor(geometry: Geometry) {
    this.#geometry = geometry;
  }

  get size(): number {
    return this.#demands.size;
  }

  /** The one that came first. */
  get first(): Demand | undefined {
    return this.#demands.values().next().value;
  }

  [Symbol.iterator](): Iterator<Demand> {
    return this.#demands.values();
  }

  /** A new demand, until it is disposed. */
  add(range: ByteRange, bulk: boolean, now: number): Demand & Disposable {
    const demand = new Demand(range, bulk, now);
    this.#demands.add(demand);
    return Object.assign(demand, { [Symbol.dispose]: () => void this.#demands.delete(demand) });
  }

  /** Blocks that are to come first, in the order of the readers' coming. */
  *urgentBlocks(): Generator<BlockRun> {
    for (const demand of this.#demands) {
      const run = demand.urgentBlocks(this.#geometry);
      if (run !== undefined) yield run;
    }
  }

  /** The blocks between the first and the last that are wanted in bulk. */
  bulkBlocks(): BlockRun | undefined {
    let start = Number.POSITIVE_INFINITY;
    let end = 0;
    for (const demand of this.#demands) {
      if (!demand.bulk || demand.position >= demand.range.end) continue;
      start = Math.min(start, demand.position);
      end = Math.max(end, demand.range.end);
    }
    return start < end ? this.#geometry.blocksOf({ start, end }) : undefined;
  }

  /** Wakes whoever can go on. @param availableFrom end of the bytes that are there from an offset on */
  wake(availableFrom: (offset: number) => number): void {
    for (const demand of this.#demands) if (availableFrom(demand.position) > demand.position) demand.wake();
  }

  fail(error: unknown): void {
    for (const demand of this.#demands) demand.fail(error);
  }

  /** Ends those readers that have got something already. */
  spoil(error: unknown): void {
    for (const demand of this.#demands) demand.spoil(error);
  }
}

/** Whether a range is so much of the content that the whole is fetched by the swarm's rules. */
export function isMostOf(range: ByteRange, contentLength: number): boolean {
  return lengthOf(range) * 2 >= contentLength;
}
