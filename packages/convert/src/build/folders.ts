import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { PantalaError } from '@pantala/base';

/**
 * Makes a folder with all that are missing above it. Node's own recursive way never ends where a file system answers
 * that something is missing though it is not, as /proc does to whoever would make something there.
 *
 * @throws `already-exists` when something else is there or above it; what the system answers
 */
export async function makeFolder(path: string): Promise<void> {
  try {
    await mkdir(path);
  } catch (thrown) {
    const { code } = thrown as NodeJS.ErrnoException;
    const above = dirname(path);
    if (code === 'ENOENT' && above !== path && (await stat(above).catch(() => undefined)) === undefined) {
      await makeFolder(above);
      await makeFolder(path);
      return;
    }
    const found = await stat(path).catch(() => undefined);
    if (found?.isDirectory() === true) return;
    if (code === 'EEXIST' || code === 'ENOTDIR')
      throw new PantalaError(
        'already-exists',
        `${path} cannot be a folder: ${code === 'EEXIST' ? 'it' : above} is a file`,
      );
    throw PantalaError.from(thrown);
  }
}
