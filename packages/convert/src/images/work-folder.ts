import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PantalaError } from '@pantala/base';

/** A folder for what is on its way, which goes with its owner. */
export class WorkFolder implements AsyncDisposable {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** @param parent default: the system's temporary folder */
  static async create(parent: string = tmpdir()): Promise<WorkFolder> {
    const path = await mkdtemp(join(parent, 'pantala-convert-')).catch((error: unknown) => {
      throw PantalaError.from(error);
    });
    return new WorkFolder(path);
  }

  join(name: string): string {
    return join(this.path, name);
  }

  holds(name: string): boolean {
    return existsSync(this.join(name));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}
