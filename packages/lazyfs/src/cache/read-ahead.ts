/** Bytes fetched along before anything is known of the source. */
const FIRST_WORTH = 256 * 1024;
const LEAST_WORTH = 64 * 1024;
/** Milliseconds that a request costs besides its way there and back: of readers, of the source, of ours. */
const REQUEST_COST = 4;
/** How much the last request counts. */
const WEIGHT = 0.25;
/** Places where readers may go on that are remembered. */
const MAX_STREAMS = 64;

/**
 * How many stored bytes a reader's request should have. What is fetched along and not read holds up the reads that
 * follow, so it is worth as much as another request would cost: the bytes that arrive in that time. Where a reader goes
 * on exactly where the last request ended, each next one is twice as long.
 */
export class ReadAhead {
  /** Milliseconds to the first byte, and bytes a millisecond after it. */
  #latency: number | undefined;
  #rate: number | undefined;
  /** Lengths of requests by the group that follows them; the oldest first. */
  readonly #streams = new Map<number, number>();

  /** @param limit bytes that one request has at most */
  lengthAt(group: number, limit: number): number {
    const before = this.#streams.get(group);
    const worth = before === undefined ? this.#worth() : Math.max(2 * before, this.#worth());
    return Math.min(limit, worth);
  }

  /** A request was begun. @param next the group behind its last */
  begun(group: number, next: number, length: number): void {
    this.#streams.delete(group);
    this.#streams.set(next, length);
    if (this.#streams.size > MAX_STREAMS) this.#streams.delete(this.#streams.keys().next().value as number);
  }

  /**
   * A request has ended.
   *
   * @param latency milliseconds to its first byte
   * @param duration milliseconds from then on in which `bytes` came
   */
  ended(latency: number, bytes: number, duration: number): void {
    this.#latency = mean(this.#latency, latency);
    // What came at once says nothing of the rate but that it is high.
    if (bytes > LEAST_WORTH) this.#rate = mean(this.#rate, bytes / Math.max(duration, 0.1));
  }

  #worth(): number {
    if (this.#latency === undefined || this.#rate === undefined) return FIRST_WORTH;
    return Math.max(LEAST_WORTH, this.#rate * (this.#latency + REQUEST_COST));
  }
}

function mean(before: number | undefined, value: number): number {
  return before === undefined ? value : before + WEIGHT * (value - before);
}
