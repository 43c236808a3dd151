import { constants, existsSync } from 'node:fs';
import { type FileHandle, lstat, mkdtemp, open, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PantalaError } from '@pantala/base';
import { tryLock, whyMissing } from '@pantala/linux';

const PREFIX = 'pantala-convert-';

/**
 * A folder for what is on its way, which goes with its owner. Whoever uses it holds a lock on it (flock), which ends
 * with the process however that ends: the next one removes what has no owner any more. Ids of processes would not tell:
 * a folder may be shared by containers that cannot see each other.
 */
export class WorkFolder implements AsyncDisposable {
  readonly path: string;
  readonly #locked: FileHandle;

  private constructor(path: string, locked: FileHandle) {
    this.path = path;
    this.#locked = locked;
  }

  /** @param parent default: the system's temporary folder */
  static async create(parent: string = tmpdir()): Promise<WorkFolder> {
    try {
      await removeAbandoned(parent);
      for (;;) {
        const path = await mkdtemp(join(parent, PREFIX));
        const folder = await openFolder(path);
        // Somebody who cleans up may have taken it for abandoned before it was locked.
        if (folder !== undefined && lock(folder) !== 'taken' && (await isAt(path, folder)))
          return new WorkFolder(path, folder);
        await folder?.close();
      }
    } catch (error) {
      throw PantalaError.from(error);
    }
  }

  join(name: string): string {
    return join(this.path, name);
  }

  holds(name: string): boolean {
    return existsSync(this.join(name));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
    await this.#locked.close();
  }
}

/** Removes folders of this user that nobody has locked. */
async function removeAbandoned(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    if (!name.startsWith(PREFIX)) continue;
    const path = join(parent, name);
    await using folder = await openFolder(path);
    // Others could put links in theirs while it is removed.
    if (folder === undefined || (await folder.stat()).uid !== process.geteuid?.()) continue;
    if (lock(folder) !== 'own' || !(await isAt(path, folder))) continue;
    // What cannot be removed is no reason to do nothing else.
    await rm(path, { recursive: true, force: true }).catch(() => undefined);
  }
}

/** `impossible` where the file system or this machine has no locks for folders: then nothing is ever abandoned. */
function lock(folder: FileHandle): 'own' | 'taken' | 'impossible' {
  if (whyMissing('flock') !== undefined) return 'impossible';
  try {
    return tryLock(folder.fd) ? 'own' : 'taken';
  } catch {
    return 'impossible';
  }
}

/** Undefined when it is gone, no folder, or somebody else's. */
async function openFolder(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  } catch (thrown) {
    const code = thrown instanceof Error && 'code' in thrown ? thrown.code : undefined;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP' || code === 'EACCES') return undefined;
    throw thrown;
  }
}

async function isAt(path: string, folder: FileHandle): Promise<boolean> {
  const own = await folder.stat();
  const found = await lstat(path).catch(() => undefined);
  return found?.ino === own.ino && found.dev === own.dev;
}
