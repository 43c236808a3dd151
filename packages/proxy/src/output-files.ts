import { realpath } from 'node:fs/promises';
import { basename, dirname, isAbsolute, join, sep } from 'node:path';
import { PantalaError } from '@pantala/base';
import type { OpenTask } from '@pantala/swarm';

/**
 * Files that clients ask for with `X-Dragonfly-Output-Path`. Whoever reaches the proxy would otherwise write as the
 * user it runs as, so they lie below directories that the operator names, and nothing is overwritten.
 */
export class OutputFiles {
  readonly #directories: readonly string[];

  constructor(directories: readonly string[]) {
    this.#directories = directories;
  }

  /**
   * The path with every link resolved, where it is allowed.
   *
   * @throws `permission-denied`, `invalid-argument`
   */
  async admit(path: string | undefined): Promise<string | undefined> {
    if (path === undefined) return undefined;
    if (!isAbsolute(path) || path.includes('\0')) {
      throw new PantalaError('invalid-argument', `X-Dragonfly-Output-Path "${path}" is not absolute`);
    }
    const parent = await realpath(dirname(path)).catch(() => undefined);
    for (const directory of this.#directories) {
      const allowed = await realpath(directory).catch(() => undefined);
      if (parent === undefined || allowed === undefined) continue;
      if (parent === allowed || parent.startsWith(allowed + sep)) return join(parent, basename(path));
    }
    throw new PantalaError(
      'permission-denied',
      `X-Dragonfly-Output-Path "${path}" lies in none of the directories that the proxy may write to`,
    );
  }

  /** Puts a complete task at `path`. Without `force`, a failure is not the reader's business (upstream's rule). */
  async put(open: OpenTask, path: string, force: boolean): Promise<void> {
    if (!open.task.complete) return;
    await (force ? open.task.linkTo(path) : open.task.copyTo(path, { overwrite: false })).catch(() => {});
  }
}
