import { PantalaError, throwIfAborted } from './errors.ts';
import { abortable } from './time.ts';

interface Flight<T> {
  readonly controller: AbortController;
  readonly result: Promise<T>;
  callers: number;
}

/**
 * One run of some work for each key at a time, shared by everybody who asks meanwhile. Each caller leaves by its own
 * signal; when the last one has left, the work is aborted and the key is free again at once.
 */
export class SingleFlight<K, T> {
  readonly #flights = new Map<K, Flight<T>>();

  get size(): number {
    return this.#flights.size;
  }

  has(key: K): boolean {
    return this.#flights.has(key);
  }

  /** @throws what the work throws; the reason of `signal` as a PantalaError */
  async run(key: K, signal: AbortSignal | undefined, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    throwIfAborted(signal);
    const flight = this.#flights.get(key) ?? this.#start(key, work);
    flight.callers++;
    try {
      return await abortable(flight.result, signal);
    } finally {
      flight.callers--;
      if (flight.callers === 0 && this.#flights.get(key) === flight) {
        this.#flights.delete(key);
        flight.controller.abort(new PantalaError('cancelled', 'nobody waits for it any more'));
      }
    }
  }

  #start(key: K, work: (signal: AbortSignal) => Promise<T>): Flight<T> {
    const controller = new AbortController();
    const result = (async () => work(controller.signal))().finally(() => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    });
    result.catch(() => {});
    const flight: Flight<T> = { controller, result, callers: 0 };
    this.#flights.set(key, flight);
    return flight;
  }
}
