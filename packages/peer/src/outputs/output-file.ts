import { lstat, open, rename, rm } from 'node:fs/promises';
import { isAbsolute } from 'node:path';
import { type ByteRange, PantalaError, throwIfAborted } from '@pantala/base';
import type { StoredTask } from '@pantala/store';

/** Bytes copied at once where only a part of the content is wanted. */
const COPY_LENGTH = 1024 * 1024;

export interface OutputOptions {
  /** Only a part of the content is wanted. */
  readonly partial: boolean;
  readonly overwrite: boolean;
  readonly hardLink: boolean;
}

/** A file that a local program wants the content in. */
export class OutputFile {
  readonly path: string;
  readonly #options: OutputOptions;

  private constructor(path: string, options: OutputOptions) {
    this.path = path;
    this.#options = options;
  }

  /**
   * Checks an order before anything is downloaded for it.
   *
   * @throws `invalid-argument`, `already-exists`
   */
  static async plan(path: string, options: OutputOptions): Promise<OutputFile> {
    if (!isAbsolute(path) || path.includes('\0')) {
      throw new PantalaError('invalid-argument', `the output path "${path}" is not absolute`);
    }
    if (options.hardLink && options.partial) {
      throw new PantalaError('invalid-argument', 'a part of the content cannot be a hard link');
    }
    const file = new OutputFile(path, options);
    await file.#refuseExisting();
    return file;
  }

  /**
   * Puts the content there, or the range of it that is wanted: whole, or not at all.
   *
   * @throws what the file system says; `already-exists`
   */
  async put(task: StoredTask, range: ByteRange | undefined, signal: AbortSignal): Promise<void> {
    const { overwrite, hardLink } = this.#options;
    if (range !== undefined) await this.receive(partsOf(task, range), signal);
    else if (!hardLink) await task.copyTo(this.path, { overwrite, signal });
    else {
      await this.#refuseExisting();
      await rm(this.path, { force: true });
      await task.linkTo(this.path);
    }
  }

  async #refuseExisting(): Promise<void> {
    const found = await lstat(this.path).catch(() => undefined);
    if (found === undefined) return;
    if (found.isDirectory()) throw new PantalaError('invalid-argument', `${this.path} is a directory`);
    if (!this.#options.overwrite) {
      throw new PantalaError('already-exists', `${this.path} exists; ask for it to be overwritten, or name another`);
    }
  }

  /** Writes bytes that are not in the store: whole, or not at all. @throws what they and the file system say */
  async receive(chunks: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<void> {
    const temporary = `${this.path}.${process.pid}.part`;
    try {
      await using file = await open(temporary, 'wx', 0o644);
      for await (const chunk of chunks) {
        throwIfAborted(signal);
        await file.writeFile(chunk);
      }
      await this.#refuseExisting();
      await rename(temporary, this.path);
    } catch (error) {
      await rm(temporary, { force: true });
      throw PantalaError.from(error);
    }
  }
}

async function* partsOf(task: StoredTask, range: ByteRange): AsyncGenerator<Buffer> {
  for (let start = range.start; start < range.end; start += COPY_LENGTH) {
    yield await task.read({ start, end: Math.min(start + COPY_LENGTH, range.end) });
  }
}
