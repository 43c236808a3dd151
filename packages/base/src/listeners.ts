/** Who wants to hear of events of one kind. */
export class Listeners<E> {
  readonly #listeners = new Set<(event: E) => void>();

  get size(): number {
    return this.#listeners.size;
  }

  /** Disposing the result ends the subscription. */
  subscribe(listener: (event: E) => void): Disposable {
    // The same function may subscribe twice: each subscription is one of its own.
    const own = (event: E) => listener(event);
    this.#listeners.add(own);
    return { [Symbol.dispose]: () => void this.#listeners.delete(own) };
  }

  /** Calls every listener that is subscribed now, synchronously. */
  emit(event: E): void {
    for (const listener of Array.from(this.#listeners)) if (this.#listeners.has(listener)) listener(event);
  }
}
