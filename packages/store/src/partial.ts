import { Bitmap, type BlockRun, Deferred, type Geometry, lengthOf } from '@pantala/base';
import type { Trust } from './contract.ts';
import type { InodeFacts } from './journal-format.ts';

/** A write, or a check, that is under way: nobody else touches its blocks until it is done. */
export interface Flight extends Disposable {
  readonly partial: Partial;
  readonly run: BlockRun;
  readonly done: Deferred;
}

/** Which blocks of a task that is not complete are on disk, and how far they may be trusted. */
export class Partial {
  /** Checked: what readers see. */
  readonly blocks: Bitmap;
  /** Of a linked file that is being verified: what it was when that began. */
  linkFacts: InodeFacts | undefined;
  readonly #geometry: Geometry;
  readonly #flights = new Set<Flight>();
  #provisional: Bitmap | undefined;
  #suspect: Bitmap | undefined;
  #bytes = 0;
  #verified: Deferred | undefined;

  constructor(geometry: Geometry) {
    this.#geometry = geometry;
    this.blocks = new Bitmap(geometry.blockCount);
  }

  get provisional(): Bitmap | undefined {
    return this.#provisional;
  }

  /** Held before a power loss or a change from outside; shown again once they were verified. */
  get suspect(): Bitmap | undefined {
    return this.#suspect;
  }

  /** Bytes of all blocks that are on disk. */
  get bytes(): number {
    return this.#bytes;
  }

  get busy(): boolean {
    return this.#flights.size > 0;
  }

  /** Settles when the verification of a linked file has ended, one way or the other. */
  get verified(): Deferred {
    this.#verified ??= new Deferred();
    return this.#verified;
  }

  /** The parts of a run that a write with this trust adds. */
  missing(run: BlockRun, trust: Trust): BlockRun[] {
    const missing = [...this.blocks.runs(false, run)];
    const provisional = this.#provisional;
    if (trust === 'checked' || provisional === undefined) return missing;
    return missing.flatMap((part) => [...provisional.runs(false, part)]);
  }

  // Each of these changes what a run is, and returns how many bytes more are on disk.

  hold(run: BlockRun): number {
    const bytes = this.#grow(run);
    this.blocks.setRun(run);
    clearRun(this.#provisional, run);
    clearRun(this.#suspect, run);
    return bytes;
  }

  hide(run: BlockRun): number {
    const bytes = this.#grow(run);
    this.#provisional ??= new Bitmap(this.#geometry.blockCount);
    this.#provisional.setRun(run);
    return bytes;
  }

  doubt(run: BlockRun): number {
    const bytes = this.#grow(run);
    this.#suspect ??= new Bitmap(this.#geometry.blockCount);
    this.#suspect.setRun(run);
    clearRun(this.blocks, run);
    return bytes;
  }

  dropProvisional(): number {
    let bytes = 0;
    for (const run of this.#provisional?.runs(true) ?? []) bytes -= lengthOf(this.#geometry.runRange(run));
    this.#provisional = undefined;
    this.#bytes += bytes;
    return bytes;
  }

  dropSuspect(block: number): number {
    this.#suspect?.clear(block);
    const bytes = -lengthOf(this.#geometry.blockRange(block));
    this.#bytes += bytes;
    return bytes;
  }

  /** Takes the blocks for the caller until it disposes the flight; a promise when it must wait and ask again. */
  takeOff(run: BlockRun): Flight | Promise<void> {
    for (const { run: other, done } of this.#flights) {
      const apart = other.first >= run.first + run.count || run.first >= other.first + other.count;
      if (!apart) return done.promise;
    }
    const done = new Deferred();
    const flight: Flight = {
      partial: this,
      run,
      done,
      [Symbol.dispose]: () => {
        this.#flights.delete(flight);
        done.resolve();
      },
    };
    this.#flights.add(flight);
    return flight;
  }

  /** Bytes of those blocks of a run that were on disk in no way yet. */
  #grow(run: BlockRun): number {
    let unknown = [...this.blocks.runs(false, run)];
    for (const bitmap of [this.#provisional, this.#suspect]) {
      if (bitmap !== undefined) unknown = unknown.flatMap((part) => [...bitmap.runs(false, part)]);
    }
    const bytes = unknown.reduce((sum, part) => sum + lengthOf(this.#geometry.runRange(part)), 0);
    this.#bytes += bytes;
    return bytes;
  }
}

function clearRun(bitmap: Bitmap | undefined, run: BlockRun): void {
  if (bitmap === undefined || bitmap.count === 0) return;
  for (let block = run.first; block < run.first + run.count; block++) bitmap.clear(block);
}
