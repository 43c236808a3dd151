export interface BackoffOptions {
  /** Milliseconds of the first pause. */
  readonly initial: number;
  /** Milliseconds that no pause exceeds. */
  readonly limit: number;
  /** How much longer each pause is than the one before. Default 2. */
  readonly factor?: number;
  /** The part of a pause that is left to chance, 0..1: many clients that failed together come back apart. Default 0.5. */
  readonly jitter?: number;
  /** Numbers in [0, 1). Default Math.random. */
  readonly random?: () => number;
}

/** Growing pauses between attempts. */
export class Backoff {
  readonly #initial: number;
  readonly #limit: number;
  readonly #factor: number;
  readonly #jitter: number;
  readonly #random: () => number;
  #attempts = 0;

  constructor(options: BackoffOptions) {
    this.#initial = options.initial;
    this.#limit = options.limit;
    this.#factor = options.factor ?? 2;
    this.#jitter = options.jitter ?? 0.5;
    this.#random = options.random ?? Math.random;
  }

  /** Pauses handed out since the start or the last reset. */
  get attempts(): number {
    return this.#attempts;
  }

  /** Milliseconds to wait before the next attempt. */
  next(): number {
    const full = Math.min(this.#limit, this.#initial * this.#factor ** this.#attempts);
    this.#attempts++;
    return full * (1 - this.#jitter * this.#random());
  }

  reset(): void {
    this.#attempts = 0;
  }
}
