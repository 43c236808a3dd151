/** Finds chunks by the first bytes of their digests. */
export class PrefixTable {
  /** Open addressing: chunk + 1 at the first free slot from where its prefix points; half of the slots stay free. */
  readonly #slots: Uint32Array;
  readonly #prefixes: Uint32Array;

  constructor(prefixes: Uint32Array) {
    let length = 4;
    while (length < prefixes.length * 2) length *= 2;
    this.#prefixes = prefixes;
    this.#slots = new Uint32Array(length);
    for (let chunk = 0; chunk < prefixes.length; chunk++) {
      let slot = (prefixes[chunk] as number) & (length - 1);
      while (this.#slots[slot] !== 0) slot = (slot + 1) & (length - 1);
      this.#slots[slot] = chunk + 1;
    }
  }

  get count(): number {
    return this.#prefixes.length;
  }

  /** Chunks whose digests begin so. */
  find(prefix: number): number[] {
    const found: number[] = [];
    const mask = this.#slots.length - 1;
    for (let slot = prefix & mask; this.#slots[slot] !== 0; slot = (slot + 1) & mask) {
      const chunk = (this.#slots[slot] as number) - 1;
      if (this.#prefixes[chunk] === prefix) found.push(chunk);
    }
    return found;
  }
}
