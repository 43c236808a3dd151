import {
  closeSync,
  constants,
  fstatSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  writeSync,
} from 'node:fs';
import { stat, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { type ByteRange, lengthOf, PantalaError } from '@pantala/base';
import { isInMemory, MAX_CACHED_READ, readCached } from '@pantala/linux';

/** What may be done with a data file: `create` it where it is missing, `extend` it, or only `read` it. */
export type FileMode = 'create' | 'extend' | 'read';

/** The two open files of a task. Each `pin` is undone by one disposal; they stay open while they are pinned. */
export class OpenFiles implements Disposable {
  readonly data: number;
  readonly #digestPath: string;
  readonly #inMemory: boolean;
  #digests: number | undefined;
  #pins = 0;
  #dropped = false;

  /** @param inMemory whether no read ever waits for a disk */
  constructor(data: number, digestPath: string, inMemory: boolean) {
    this.data = data;
    this.#digestPath = digestPath;
    this.#inMemory = inMemory;
  }

  get pinned(): boolean {
    return this.#pins > 0;
  }

  pin(): this {
    this.#pins++;
    return this;
  }

  [Symbol.dispose](): void {
    this.#pins--;
    if (this.#dropped && this.#pins === 0) this.#close();
  }

  /** Closes the files as soon as nobody pins them. */
  drop(): void {
    this.#dropped = true;
    if (this.#pins === 0) this.#close();
  }

  /** A small range, if it can be had without waiting for a disk. */
  readNow(range: ByteRange): Buffer | undefined {
    const length = lengthOf(range);
    if (length > MAX_CACHED_READ) return undefined;
    if (!this.#inMemory) return readCached(this.data, range.start, length);
    const data = Buffer.allocUnsafe(length);
    return readSync(this.data, data, 0, length, range.start) === length ? data : undefined;
  }

  readDigests(digests: Buffer, position: number): void {
    if (readSync(this.#digestFile(), digests, 0, digests.length, position) < digests.length) {
      throw new PantalaError('data-loss', `${this.#digestPath} ends before byte ${position + digests.length}`);
    }
  }

  writeDigests(digests: Buffer, position: number): void {
    for (let done = 0; done < digests.length; ) {
      done += writeSync(this.#digestFile(), digests, done, digests.length - done, position + done);
    }
  }

  #digestFile(): number {
    this.#digests ??= openSync(this.#digestPath, constants.O_RDWR | constants.O_CREAT, 0o600);
    return this.#digests;
  }

  #close(): void {
    closeSync(this.data);
    if (this.#digests !== undefined) closeSync(this.#digests);
  }
}

const DIGESTS_SUFFIX = '.digests';

/** Where the files of tasks lie, and which of them are open. */
export class TaskFiles {
  readonly #root: string;
  readonly #trash: string;
  readonly #maxOpen: number;
  readonly #inMemory: boolean;
  /** From the least to the most recently used. */
  readonly #open = new Map<string, OpenFiles>();
  #trashed = 0;

  /** @param maxOpen tasks whose files stay open without being pinned */
  constructor(directory: string, maxOpen: number) {
    this.#root = join(directory, 'tasks');
    this.#trash = join(directory, 'trash');
    this.#maxOpen = maxOpen;
    mkdirSync(this.#root, { recursive: true, mode: 0o700 });
    mkdirSync(this.#trash, { recursive: true, mode: 0o700 });
    this.#inMemory = isInMemory(this.#root);
  }

  dataPath(id: string): string {
    return join(this.#root, id.slice(0, 3), id);
  }

  #digestPath(id: string): string {
    return this.dataPath(id) + DIGESTS_SUFFIX;
  }

  isPinned(id: string): boolean {
    return this.#open.get(id)?.pinned ?? false;
  }

  /** @throws `data-loss` when the file is missing or has another length although it should not */
  pin(id: string, contentLength: number, mode: FileMode): OpenFiles {
    const found = this.#open.get(id);
    if (found !== undefined) {
      this.#open.delete(id);
      this.#open.set(id, found);
      return found.pin();
    }
    const data = this.#openData(id, contentLength, mode);
    const opened = new OpenFiles(data, this.#digestPath(id), this.#inMemory).pin();
    this.#open.set(id, opened);
    this.#shrink();
    return opened;
  }

  #openData(id: string, contentLength: number, mode: FileMode): number {
    const path = this.dataPath(id);
    const flags = { create: constants.O_RDWR | constants.O_CREAT, extend: constants.O_RDWR, read: constants.O_RDONLY };
    let fd: number;
    try {
      fd = openSync(path, flags[mode], 0o600);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw PantalaError.from(error);
      if (mode !== 'create') throw new PantalaError('data-loss', `${path} is gone`, { cause: error });
      mkdirSync(join(this.#root, id.slice(0, 3)), { recursive: true, mode: 0o700 });
      fd = openSync(path, flags.create, 0o600);
    }
    const { size, nlink } = fstatSync(fd);
    if (mode === 'create' && nlink > 1) {
      // Left by a task that is gone, and somebody's output by now: never written to.
      closeSync(fd);
      void this.discard(id);
      return this.#openData(id, contentLength, mode);
    }
    if (size === contentLength) return fd;
    if (mode === 'create') {
      ftruncateSync(fd, contentLength);
      return fd;
    }
    closeSync(fd);
    throw new PantalaError('data-loss', `${path} has ${size} bytes instead of ${contentLength}`);
  }

  #shrink(): void {
    if (this.#open.size <= this.#maxOpen) return;
    for (const [id, files] of this.#open) {
      if (files.pinned) continue;
      this.#open.delete(id);
      files.drop();
      if (this.#open.size <= this.#maxOpen) return;
    }
  }

  /** Closes a task's files when nobody pins them any more; the next pin opens them anew. */
  close(id: string): void {
    const files = this.#open.get(id);
    this.#open.delete(id);
    files?.drop();
  }

  closeAll(): void {
    for (const id of this.#open.keys()) this.close(id);
  }

  /**
   * Takes a task's files out of the way at once, so that new ones can be made; resolves when their room is free, as
   * far as no lease or hard link keeps it.
   */
  async discard(id: string): Promise<void> {
    this.close(id);
    const doomed = [this.dataPath(id), this.#digestPath(id)].flatMap((path) => {
      const trash = join(this.#trash, `${process.pid}-${this.#trashed++}`);
      try {
        renameSync(path, trash);
        return [trash];
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
        throw PantalaError.from(error);
      }
    });
    await Promise.all(doomed.map((path) => unlink(path)));
  }

  /** How many names the data file has; 0 when there is none. */
  async links(id: string): Promise<number> {
    try {
      return (await stat(this.dataPath(id))).nlink;
    } catch {
      return 0;
    }
  }

  /** Removes what a killed daemon left: files in the trash, and those of tasks that nobody knows. */
  async sweep(isKnown: (id: string) => boolean): Promise<number> {
    let removed = 0;
    for (const name of readdirSync(this.#trash)) {
      // A number of this process is on its way out already.
      if (name.startsWith(`${process.pid}-`)) continue;
      await unlink(join(this.#trash, name));
      removed++;
    }
    for (const folder of readdirSync(this.#root)) {
      for (const name of readdirSync(join(this.#root, folder))) {
        const id = name.endsWith(DIGESTS_SUFFIX) ? name.slice(0, -DIGESTS_SUFFIX.length) : name;
        if (isKnown(id)) continue;
        await unlink(join(this.#root, folder, name));
        removed++;
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
    return removed;
  }
}
