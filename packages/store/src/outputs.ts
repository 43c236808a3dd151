import { randomUUID } from 'node:crypto';
import { fchmod, read, write } from 'node:fs';
import { link, open, rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { PantalaError, throwIfAborted } from '@pantala/base';
import { copyFileRange, reflink } from '@pantala/linux';

const readFile = promisify(read);
const writeFile = promisify(write);
const changeMode = promisify(fchmod);

/** Bytes of one read and write where the kernel cannot copy. */
const COPY_LENGTH = 1024 * 1024;

export interface CopyOptions {
  readonly overwrite: boolean;
  readonly signal?: AbortSignal;
  /** Throws when the source turned out to be wrong. */
  readonly check: () => void;
}

/**
 * Copies an open file to `path` by the cheapest way that the file systems offer. The path has the whole content or
 * is as it was.
 */
export async function copyOut(source: number, length: number, path: string, options: CopyOptions): Promise<void> {
  const { overwrite, signal, check } = options;
  if (!overwrite && (await exists(path))) throw alreadyExists(path);
  const partPath = join(dirname(path), `.${basename(path).slice(0, 100)}.${randomUUID()}`);
  try {
    await using part = await open(partPath, 'wx', 0o644);
    await copyContent(source, part.fd, length, signal);
    check();
    await part.close();
    if (overwrite) await rename(partPath, path);
    else await linkNew(partPath, path);
  } catch (error) {
    throw PantalaError.from(error);
  } finally {
    await unlink(partPath).catch(() => {});
  }
}

async function copyContent(source: number, target: number, length: number, signal?: AbortSignal): Promise<void> {
  throwIfAborted(signal);
  const inKernel = [
    () => reflink(source, target),
    () => copyFileRange(source, target, { start: 0, end: length }, signal),
  ];
  for (const attempt of inKernel) {
    try {
      await attempt();
      return;
    } catch (error) {
      // Anything but these means that this way does not exist here; the next one says what is wrong with the files.
      const { code } = PantalaError.from(error);
      if (code === 'disk-full' || code === 'cancelled' || code === 'deadline-exceeded' || code === 'data-loss')
        throw error;
    }
  }
  const buffer = Buffer.allocUnsafe(Math.min(COPY_LENGTH, Math.max(1, length)));
  for (let offset = 0; offset < length; ) {
    throwIfAborted(signal);
    const { bytesRead } = await readFile(source, buffer, 0, Math.min(buffer.length, length - offset), offset);
    if (bytesRead === 0) throw new PantalaError('data-loss', `the source ends at ${offset} instead of ${length}`);
    for (let done = 0; done < bytesRead; ) {
      done += (await writeFile(target, buffer, done, bytesRead - done, offset + done)).bytesWritten;
    }
    offset += bytesRead;
  }
}

/** Makes `path` a second, read-only name of a stored file. One that it is already is fine. */
export async function linkOut(dataPath: string, fd: number, path: string): Promise<void> {
  await changeMode(fd, 0o444);
  try {
    await link(dataPath, path);
  } catch (thrown) {
    const error = PantalaError.from(thrown);
    if (error.code === 'already-exists') {
      const [ours, theirs] = await Promise.all([stat(dataPath), stat(path)]);
      if (ours.ino === theirs.ino && ours.dev === theirs.dev) return;
      throw alreadyExists(path);
    }
    if ((thrown as NodeJS.ErrnoException).code !== 'EXDEV') throw error;
    throw new PantalaError(
      'failed-precondition',
      `${path} is on another file system than the store: a hard link cannot reach it; ask for a copy instead`,
      { cause: thrown },
    );
  }
}

async function linkNew(from: string, path: string): Promise<void> {
  try {
    await link(from, path);
  } catch (thrown) {
    const error = PantalaError.from(thrown);
    if (error.code === 'already-exists') throw alreadyExists(path);
    // A file system without hard links: between the look and the move somebody else's file could be lost.
    if (error.code !== 'permission-denied' || (await exists(path))) throw error;
    await rename(from, path);
  }
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

function alreadyExists(path: string): PantalaError {
  return new PantalaError('already-exists', `${path} exists already; remove it or ask to overwrite it`);
}
