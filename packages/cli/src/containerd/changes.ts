import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { PantalaError, sha256Hex } from '@pantala/base';

const BACKUP_SUFFIX = '.pantala-backup';

/** One file that was written, and what has to be done to take it back. */
interface Change {
  readonly path: string;
  /** Where what was there before lies; undefined when nothing was. */
  readonly backup: string | undefined;
  /** Of what we wrote: a file that somebody has changed since is not ours to take away. */
  readonly sha256: string;
}

interface Record {
  readonly changes: readonly Change[];
  /** Directories that did not exist, outermost first. */
  readonly directories: readonly string[];
}

export interface UndoResult {
  readonly restored: readonly string[];
  readonly removed: readonly string[];
  /** Files that were changed by others since; left as they are. */
  readonly left: readonly string[];
}

/**
 * Files written on behalf of a program that is not ours, in a way that can be taken back exactly: what was there is
 * moved aside with its times and owner, and a record beside it says so before anything changes. So a run that is
 * killed half-way can be undone as well.
 */
export class ReversibleChanges {
  readonly #recordPath: string;
  #record: Record;

  constructor(recordPath: string) {
    this.#recordPath = recordPath;
    this.#record = read(recordPath);
  }

  /** Whether a file stands as we wrote it. */
  owns(path: string): boolean {
    const change = this.#record.changes.find((each) => each.path === path);
    return change !== undefined && digestOf(path) === change.sha256;
  }

  /** Writes a file whole. What was there before is kept for `undo`, unless it was written by us. */
  write(path: string, content: string): void {
    const target = existsSync(path) ? realpathSync(path) : path;
    const known = this.#record.changes.find((each) => each.path === target);
    const fresh = known === undefined || !this.owns(target);
    const backup = fresh ? (existsSync(target) ? target + BACKUP_SUFFIX : undefined) : known.backup;
    if (fresh && backup !== undefined && existsSync(backup)) {
      throw new PantalaError(
        'failed-precondition',
        `${backup} exists already, from an earlier run; move it out of the way, so that no backup is lost`,
      );
    }
    const change: Change = { path: target, backup, sha256: sha256Hex(content) };
    const missing = missingDirectories(dirname(target));
    mkdirSync(dirname(this.#recordPath), { recursive: true });
    this.#save({
      changes: [...this.#record.changes.filter((each) => each !== known), change],
      directories: [...this.#record.directories, ...missing.filter((each) => !this.#record.directories.includes(each))],
    });
    mkdirSync(dirname(target), { recursive: true });
    const temporary = `${target}.pantala-new`;
    writeFileSync(temporary, content, { mode: 0o644 });
    if (existsSync(target)) {
      const { mode, uid, gid } = statSync(target);
      chmodSync(temporary, mode & 0o7777);
      chownSync(temporary, uid, gid);
      if (fresh && backup !== undefined) renameSync(target, backup);
    }
    renameSync(temporary, target);
  }

  /** Takes everything back in the opposite order. */
  undo(): UndoResult {
    const restored: string[] = [];
    const removed: string[] = [];
    const left: string[] = [];
    for (const { path, backup, sha256 } of this.#record.changes.toReversed()) {
      const present = digestOf(path);
      // Killed between two steps: the file was moved aside but not replaced, or not even that.
      const untouched = backup !== undefined && !existsSync(backup);
      if (present !== undefined && present !== sha256) {
        if (!untouched) left.push(path);
      } else if (backup !== undefined) {
        if (existsSync(backup)) renameSync(backup, path);
        restored.push(path);
      } else {
        rmSync(path, { force: true });
        removed.push(path);
      }
    }
    rmSync(this.#recordPath, { force: true });
    for (const directory of this.#record.directories.toReversed()) removeEmpty(directory);
    this.#record = { changes: [], directories: [] };
    return { restored, removed, left };
  }

  #save(record: Record): void {
    const temporary = `${this.#recordPath}.new`;
    writeFileSync(temporary, `${JSON.stringify(record, undefined, 2)}\n`);
    renameSync(temporary, this.#recordPath);
    this.#record = record;
  }
}

function read(path: string): Record {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return { changes: [], directories: [] };
    throw error;
  }
  try {
    return JSON.parse(text) as Record;
  } catch (cause) {
    throw new PantalaError('data-loss', `${path} is damaged; undo by hand what the ${BACKUP_SUFFIX} files show`, {
      cause,
    });
  }
}

function digestOf(path: string): string | undefined {
  return existsSync(path) ? sha256Hex(readFileSync(path)) : undefined;
}

/** Directories on the way to `directory` that are not there, outermost first. */
function missingDirectories(directory: string): string[] {
  if (existsSync(directory)) return [];
  return [...missingDirectories(join(directory, '..')), directory];
}

function removeEmpty(directory: string): void {
  try {
    rmdirSync(directory);
  } catch {
    // Somebody else has put something into it, or taken it away.
  }
}
