import { PantalaError } from '@pantala/base';

/** A signal for whatever a command does: Ctrl-C and SIGTERM stop it, with what is half done taken back. */
export class Interruption implements Disposable {
  readonly signal: AbortSignal;
  readonly #stop: () => void;

  constructor() {
    const controller = new AbortController();
    this.signal = controller.signal;
    this.#stop = () => controller.abort(new PantalaError('cancelled', 'interrupted'));
    process.once('SIGINT', this.#stop).once('SIGTERM', this.#stop);
  }

  [Symbol.dispose](): void {
    process.off('SIGINT', this.#stop).off('SIGTERM', this.#stop);
  }
}
