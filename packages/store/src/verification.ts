import { type BlockRun, blockDigest, DIGEST_LENGTH, type Geometry, monotonicNow, sleep } from '@pantala/base';
import type { JournaledTask } from './journaled-task.ts';

/** Numbers of those blocks of a run whose bytes do not have their digest. */
export function damagedBlocks(geometry: Geometry, run: BlockRun, data: Buffer, digests: Buffer): number[] {
  const origin = geometry.blockRange(run.first).start;
  const damaged: number[] = [];
  for (let i = 0; i < run.count; i++) {
    const { start, end } = geometry.blockRange(run.first + i);
    const expected = digests.subarray(i * DIGEST_LENGTH, (i + 1) * DIGEST_LENGTH);
    if (!blockDigest(data.subarray(start - origin, end - origin)).equals(expected)) damaged.push(run.first + i);
  }
  return damaged;
}

/** How much longer than its work the background check of a task that nobody asked for pauses. */
const BACKGROUND_PAUSE = 4;

/** Verifies suspect tasks one after the other: those that somebody asked for first and at full speed. */
export class Verifier {
  /** Whether somebody waits for it. */
  readonly #queue = new Map<JournaledTask, boolean>();
  readonly #signal: AbortSignal;
  #running: Promise<void> | undefined;

  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** @param demanded somebody waits for it: it comes before those that nobody asked for */
  add(task: JournaledTask, demanded: boolean): void {
    this.#queue.set(task, demanded || this.#queue.get(task) === true);
    this.#running ??= this.#run();
  }

  /** Resolves when it has stopped, after its signal. */
  async stopped(): Promise<void> {
    await this.#running;
  }

  #next(): [JournaledTask, boolean] | undefined {
    let any: [JournaledTask, boolean] | undefined;
    for (const entry of this.#queue) {
      if (entry[1]) return entry;
      any ??= entry;
    }
    return any;
  }

  async #run(): Promise<void> {
    try {
      for (let next = this.#next(); next !== undefined && !this.#signal.aborted; next = this.#next()) {
        const [task, demanded] = next;
        const start = monotonicNow();
        if (!(await task.verifySome())) this.#queue.delete(task);
        else if (!demanded) await sleep((monotonicNow() - start) * BACKGROUND_PAUSE, this.#signal).catch(() => {});
      }
    } finally {
      this.#running = undefined;
    }
  }
}
