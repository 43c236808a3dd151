import { MAX_FRAME_LENGTH } from './packet.ts';

/**
 * Memory that one connection receives into: packets and blocks are used where the kernel put them. The largest frame,
 * and more than the longest packet.
 */
export const ARENA_LENGTH = MAX_FRAME_LENGTH + 256 * 1024;

/** Free arenas that are kept for the next connection; more are left to the collector. */
const MAX_FREE_ARENAS = 8;

export class Arena {
  readonly bytes = Buffer.allocUnsafeSlow(ARENA_LENGTH);
  /** Receivers that still use a part of it. */
  pins = 0;
}

/** Arenas shared by connections: one that waits for nothing needs none. */
export class ArenaPool {
  readonly #free: Arena[] = [];
  /** Where connections without an arena receive; used up synchronously, so one is enough for all. */
  readonly idleBytes: Buffer = Buffer.allocUnsafeSlow(64 * 1024);

  take(): Arena {
    return this.#free.pop() ?? new Arena();
  }

  give(arena: Arena): void {
    if (this.#free.length < MAX_FREE_ARENAS) this.#free.push(arena);
  }
}
