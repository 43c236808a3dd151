import type { TrafficCount } from './contract.ts';

/** Bytes by where they came from. */
export class Traffic implements TrafficCount {
  originBytes = 0;
  peerBytes = 0;
  localBytes = 0;
}

/** What one reader has caused: the task's totals since it came, and the bytes that it found. */
export class ReaderTraffic implements TrafficCount {
  readonly #task: TrafficCount;
  readonly #originBefore: number;
  readonly #peerBefore: number;
  localBytes = 0;

  constructor(task: TrafficCount) {
    this.#task = task;
    this.#originBefore = task.originBytes;
    this.#peerBefore = task.peerBytes;
  }

  get originBytes(): number {
    return this.#task.originBytes - this.#originBefore;
  }

  get peerBytes(): number {
    return this.#task.peerBytes - this.#peerBefore;
  }
}
