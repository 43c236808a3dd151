/** A set whose members can be drawn by number: add, delete and draw take constant time. */
export class IndexedSet<T> {
  readonly #items: T[] = [];
  readonly #places = new Map<T, number>();

  get size(): number {
    return this.#items.length;
  }

  has(item: T): boolean {
    return this.#places.has(item);
  }

  at(index: number): T {
    return this.#items[index] as T;
  }

  add(item: T): void {
    if (this.#places.has(item)) return;
    this.#places.set(item, this.#items.length);
    this.#items.push(item);
  }

  delete(item: T): boolean {
    const place = this.#places.get(item);
    if (place === undefined) return false;
    this.#places.delete(item);
    const last = this.#items.pop() as T;
    if (last !== item) {
      this.#items[place] = last;
      this.#places.set(last, place);
    }
    return true;
  }

  /** Up to `count` different members, begun at a place that `start` decides and spread over the whole set. */
  *draw(count: number, start: number): Generator<T> {
    const size = this.#items.length;
    if (size === 0) return;
    const wanted = Math.min(count, size);
    const step = Math.max(1, Math.floor(size / wanted));
    const first = start % size;
    for (let drawn = 0; drawn < wanted; drawn++) yield this.#items[(first + drawn * step) % size] as T;
  }

  [Symbol.iterator](): IterableIterator<T> {
    return this.#items[Symbol.iterator]();
  }
}
