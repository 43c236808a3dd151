/** A map that lets go of what was used least recently when it holds more than `limit` entries. */
export class Lru<K, V> {
  readonly limit: number;
  readonly #entries = new Map<K, V>();
  readonly #onEvict: ((key: K, value: V) => void) | undefined;

  /** @param onEvict called for each entry that is pushed out by a new one, not for those deleted */
  constructor(limit: number, onEvict?: (key: K, value: V) => void) {
    this.limit = limit;
    this.#onEvict = onEvict;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** The value, which counts as used now. */
  get(key: K): V | undefined {
    const value = this.#entries.get(key);
    if (value === undefined) return undefined;
    this.#entries.delete(key);
    this.#entries.set(key, value);
    return value;
  }

  set(key: K, value: V): void {
    this.#entries.delete(key);
    this.#entries.set(key, value);
    for (const [oldest, dropped] of this.#entries) {
      if (this.#entries.size <= this.limit) return;
      this.#entries.delete(oldest);
      this.#onEvict?.(oldest, dropped);
    }
  }

  delete(key: K): V | undefined {
    const value = this.#entries.get(key);
    this.#entries.delete(key);
    return value;
  }

  /** From the least to the most recently used. */
  entries(): MapIterator<[K, V]> {
    return this.#entries.entries();
  }
}
