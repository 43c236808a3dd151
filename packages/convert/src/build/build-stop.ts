import { AbortScope, PantalaError } from '@pantala/base';

/** The first failure of a build, after which nothing more of it is done. */
export class BuildStop implements Disposable {
  readonly #scope: AbortScope;
  #failure: PantalaError | undefined;

  constructor(signal: AbortSignal | undefined) {
    this.#scope = new AbortScope([signal]);
  }

  /** Aborted by whoever wants the build, or by a failure. */
  get signal(): AbortSignal {
    return this.#scope.signal;
  }

  get failure(): PantalaError | undefined {
    return this.#failure;
  }

  readonly fail = (error: unknown): void => {
    this.#failure ??= PantalaError.from(error);
    this.#scope.abort(this.#failure);
  };

  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  [Symbol.dispose](): void {
    this.#scope[Symbol.dispose]();
  }
}
