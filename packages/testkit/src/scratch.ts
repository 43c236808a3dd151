import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A temporary folder that goes with its owner. */
export class Scratch implements AsyncDisposable {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** @param parent on another filesystem than the system's temporary one, such as tmpfs for benches */
  static create(name: string, parent = tmpdir()): Scratch {
    return new Scratch(mkdtempSync(join(parent, `pantala-${name}-`)));
  }

  join(...parts: readonly string[]): string {
    return join(this.path, ...parts);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A program that was killed a moment ago may still be writing: a few tries are enough.
    rmSync(this.path, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}
