/** Places for digests: enough that few of a million chunks push each other out. 4 MiB. */
const PLACES = 2 ** 20;

/**
 * Which digests have been seen, shared between threads and only by hint: a digest may have been forgotten, or taken
 * for another. So workers need not compress what is stored already; whoever places chunks looks at whole digests.
 */
export class KnownDigests {
  readonly memory: SharedArrayBuffer;
  readonly #places: Uint32Array;

  constructor(memory: SharedArrayBuffer = new SharedArrayBuffer(4 * PLACES)) {
    this.memory = memory;
    this.#places = new Uint32Array(memory);
  }

  add(digest: Uint8Array): void {
    Atomics.store(this.#places, placeOf(digest), markOf(digest));
  }

  clear(): void {
    this.#places.fill(0);
  }

  mayHave(digest: Uint8Array): boolean {
    return Atomics.load(this.#places, placeOf(digest)) === markOf(digest);
  }
}

function placeOf(digest: Uint8Array): number {
  return word(digest, 0) % PLACES;
}

/** Never 0, which is an empty place. */
function markOf(digest: Uint8Array): number {
  return word(digest, 4) || 1;
}

function word(digest: Uint8Array, at: number): number {
  const [a, b, c, d] = [digest[at], digest[at + 1], digest[at + 2], digest[at + 3]] as [number, number, number, number];
  return (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
}
