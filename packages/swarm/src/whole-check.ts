import { type ContentDigest, parseContentDigest } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { DigestJob, WholeDigests } from './whole-digest/whole-digest.ts';

/** Checks one task's whole content against the digest that its name promises, while it arrives. */
export class WholeCheck implements Disposable {
  readonly #task: StoredTask;
  readonly #digests: WholeDigests;
  readonly #expected: ContentDigest | undefined;
  #job: DigestJob | undefined;

  constructor(task: StoredTask, digests: WholeDigests) {
    this.#task = task;
    this.#digests = digests;
    const { digest } = task.description;
    this.#expected = digest === undefined ? undefined : parseContentDigest(digest);
  }

  /** The first `blocks` blocks are on disk. */
  extend(blocks: number): void {
    if (this.#expected === undefined || blocks === 0) return;
    this.#job ??= this.#digests.begin(this.#task, this.#expected);
    this.#job.extend(this.#task.geometry.blockRange(blocks - 1).end);
  }

  /** Once everything is on disk: whether it is what it should be (true where nothing is known of it). */
  async holds(): Promise<boolean> {
    return this.#job === undefined || (await this.#job.hex) === this.#expected?.hex;
  }

  /** Forgets what was read; it may begin anew. */
  [Symbol.dispose](): void {
    this.#job?.[Symbol.dispose]();
    this.#job = undefined;
  }
}
