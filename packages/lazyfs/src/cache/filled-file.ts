import type { BigIntStats } from 'node:fs';
import { constants } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { type Bitmap, type ByteRange, lengthOf, PantalaError, type ReadonlyBitmap } from '@pantala/base';
import { copyFileRange } from '@pantala/linux';
import { FilledBlocks } from '../filled-blocks.ts';
import type { FoundChunk } from './chunk-index.ts';
import type { ChunkLayout, DecodedChunk } from './chunk-layout.ts';
import { readRange, writeRange } from './file-range.ts';
import { FillJournal, type RecoveredFill } from './fill-journal.ts';

/** Chunks begin at multiples of this in the decoded blob. */
const ALIGNMENT = 4096;
const FILLING = new Uint8Array(ALIGNMENT);
/** Bytes written after which they are brought to the disk, so that a power loss takes no more than these. */
const SYNC_EVERY = 256 * 1024 * 1024;

export interface FilePaths {
  readonly data: string;
  readonly journal: string;
}

/** The sparse file of a blob's decoded chunks, with the record of which are there. */
export class FilledFile {
  readonly path: string;
  readonly blocks: FilledBlocks;
  /** Whether somebody changed it after its journal: a worker in the moment of its death, or who had no business there. */
  readonly doubted: boolean;
  readonly #layout: ChunkLayout;
  readonly #file: FileHandle;
  readonly #journal: FillJournal;
  readonly #held: Bitmap;
  readonly #suspect: Bitmap;
  readonly #makeRoom: (bytes: number) => Promise<boolean>;
  readonly #chunkBytes: number;
  #heldBytes: number;
  #unsynced = 0;
  #closed = false;
  #syncing: Promise<void> | undefined;

  private constructor(
    path: string,
    layout: ChunkLayout,
    file: FileHandle,
    recovered: RecoveredFill,
    makeRoom: (bytes: number) => Promise<boolean>,
  ) {
    this.path = path;
    this.#layout = layout;
    this.#file = file;
    this.#journal = recovered.journal;
    this.#held = recovered.held;
    this.#suspect = recovered.suspect;
    this.doubted = recovered.doubted;
    this.#makeRoom = makeRoom;
    this.blocks = FilledBlocks.create(layout.size);
    let all = 0;
    let held = 0;
    for (let chunk = 0; chunk < layout.chunkCount; chunk++) {
      const range = layout.rangeOf(chunk);
      all += lengthOf(range);
      if (!this.#held.has(chunk)) continue;
      held += lengthOf(range);
      this.blocks.add(range);
    }
    this.#chunkBytes = all;
    this.#heldBytes = held;
  }

  /** @param makeRoom asked once when the disk is full; a write is tried again when it frees something */
  static async open(
    paths: FilePaths,
    layout: ChunkLayout,
    { makeRoom, inUse }: { readonly makeRoom: (bytes: number) => Promise<boolean>; readonly inUse: boolean },
  ): Promise<FilledFile> {
    const found = await statOrUndefined(paths.data);
    const identity = { blobId: layout.blobId, chunkCount: layout.chunkCount, size: layout.size };
    const recovered = await FillJournal.open(paths.journal, identity, found, inUse);
    try {
      const file = await open(paths.data, constants.O_RDWR | constants.O_CREAT, 0o600);
      if (found?.size !== BigInt(layout.size)) {
        // Of another size it is of another layout: nothing of it can be used.
        await file.truncate(0);
        await file.truncate(layout.size);
      }
      return new FilledFile(paths.data, layout, file, recovered, makeRoom);
    } catch (error) {
      await recovered.journal[Symbol.asyncDispose]();
      throw PantalaError.from(error);
    }
  }

  get descriptor(): number {
    return this.#file.fd;
  }

  /** Chunks that are there. */
  get held(): ReadonlyBitmap {
    return this.#held;
  }

  /** Chunks that may be there; nobody has looked. */
  get suspect(): ReadonlyBitmap {
    return this.#suspect;
  }

  get filled(): { readonly bytes: number; readonly of: number } {
    return { bytes: this.#heldBytes, of: this.#chunkBytes };
  }

  get complete(): boolean {
    return this.#held.count === this.#layout.chunkCount;
  }

  /** Whether a suspect chunk is right; it is held then, and else no longer suspect. */
  async confirm(chunk: number): Promise<boolean> {
    const isRight = await this.#isRight(chunk).catch(() => false);
    this.#suspect.clear(chunk);
    if (isRight) this.#hold([chunk]);
    return isRight;
  }

  async #isRight(chunk: number): Promise<boolean> {
    const { start, end } = this.#layout.rangeOf(chunk);
    const blocks = await readRange(this.descriptor, { start, end: alignUp(end) });
    return (
      this.#layout.matches(chunk, blocks.subarray(0, end - start)) &&
      // A program that maps the end of a file sees the rest of its block.
      blocks.subarray(end - start).every((byte) => byte === 0)
    );
  }

  /**
   * Looks at every chunk that is held.
   *
   * @param pause awaited before each
   * @returns whether all are right
   * @throws what `pause` throws; when the file cannot be read, or is closed
   */
  async isRight(pause: () => Promise<void>): Promise<boolean> {
    const { chunkCount } = this.#layout;
    for (let chunk = this.#held.next(true, 0); chunk < chunkCount; chunk = this.#held.next(true, chunk + 1)) {
      await pause();
      const isRight = await this.#isRight(chunk);
      // Its descriptor may be another file's by now.
      if (this.#closed) throw new PantalaError('cancelled', `${this.path} was closed`);
      if (!isRight) return false;
    }
    return true;
  }

  /** Has whoever opens the file next check every chunk. */
  distrust(): void {
    this.#journal.appendSuspect(this.#held.runs(true));
  }

  /** Writes chunks that were checked. @throws `disk-full` */
  async write(chunks: readonly DecodedChunk[]): Promise<void> {
    const missing = chunks.filter(({ index }) => !this.#held.has(index));
    for (let first = 0; first < missing.length; ) {
      let end = first + 1;
      while (end < missing.length && this.#isNext(missing[end - 1] as DecodedChunk, missing[end] as DecodedChunk))
        end++;
      await this.#writeRun(missing.slice(first, end));
      first = end;
    }
  }

  #isNext(a: DecodedChunk, b: DecodedChunk): boolean {
    return (
      b.index === a.index + 1 && this.#layout.rangeOf(b.index).start === alignUp(this.#layout.rangeOf(a.index).end)
    );
  }

  /** Chunks one after the other, in one write. */
  async #writeRun(chunks: readonly DecodedChunk[]): Promise<void> {
    const buffers = chunks.flatMap(({ content }) => {
      const filling = alignUp(content.length) - content.length;
      return filling === 0 ? [content] : [content, FILLING.subarray(0, filling)];
    });
    const [first] = chunks as [DecodedChunk];
    const { start } = this.#layout.rangeOf(first.index);
    await this.#withRoom(
      buffers.reduce((sum, buffer) => sum + buffer.length, 0),
      () => writeRange(this.descriptor, buffers, start),
    );
    this.#hold(chunks.map(({ index }) => index));
  }

  /**
   * Holds chunks that somebody else checks and writes, each with zeros up to the next block.
   *
   * @param bytes about so many
   * @param write by the file's descriptor: the groups of chunks that are there then. Called again when the disk was full
   *   and is no longer
   */
  async writeBy(bytes: number, write: (descriptor: number) => Promise<readonly number[]>): Promise<readonly number[]> {
    let groups: readonly number[] = [];
    await this.#withRoom(bytes, async () => {
      groups = await write(this.descriptor);
    });
    const runs = groups.map((group) => this.#layout.group(group));
    this.#hold(runs.flatMap(({ first, count }) => Array.from({ length: count }, (_, at) => first + at)));
    return groups;
  }

  /** Takes over a chunk from another blob's file, where the file system can without copying its bytes. */
  async copy(chunk: number, found: FoundChunk): Promise<void> {
    const { start, end } = this.#layout.rangeOf(chunk);
    // Whole blocks: file systems share nothing less. What follows a chunk in its last block is zeros on both sides.
    const length = alignUp(end) - start;
    const range: ByteRange = { start: found.start, end: found.start + length };
    await this.#withRoom(length, async () => {
      try {
        await copyFileRange(found.descriptor, this.descriptor, range, undefined, { to: start });
      } catch (error) {
        if (PantalaError.from(error).code === 'disk-full') throw error;
        await writeRange(this.descriptor, [found.content], start);
      }
    });
    this.#hold([chunk]);
  }

  async #withRoom(bytes: number, write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (thrown) {
      const error = PantalaError.from(thrown);
      if (error.code !== 'disk-full') throw error;
      try {
        if (await this.#makeRoom(bytes)) return await write();
      } catch (again) {
        if (PantalaError.from(again).code !== 'disk-full') throw again;
      }
      throw new PantalaError(
        'disk-full',
        `no room for ${bytes} bytes of ${this.path}; free some, or put the cache on a larger disk`,
        { cause: thrown, details: { path: this.path, bytes } },
      );
    }
  }

  #hold(chunks: readonly number[]): void {
    if (chunks.length === 0) return;
    for (const chunk of chunks) {
      if (!this.#held.set(chunk)) continue;
      this.#suspect.clear(chunk);
      const range = this.#layout.rangeOf(chunk);
      this.blocks.add(range);
      this.#unsynced += lengthOf(range);
      this.#heldBytes += lengthOf(range);
    }
    this.#journal.append(runsOf(chunks));
    if (this.#unsynced >= SYNC_EVERY) void this.makeDurable().catch(() => {});
  }

  /** Brings what is there to the disk, so that it outlives a power loss. */
  makeDurable(): Promise<void> {
    this.#syncing ??= this.#sync().finally(() => {
      this.#syncing = undefined;
    });
    return this.#syncing;
  }

  async #sync(): Promise<void> {
    if (this.#unsynced === 0) return;
    this.#unsynced = 0;
    await this.#journal.makeDurable(() => this.#file.datasync());
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.blocks.revoke();
    this.#journal.appendUsed();
    // A sync that fails costs a look at the chunks after a power loss.
    await this.makeDurable().catch(() => {});
    await this.#journal[Symbol.asyncDispose]();
    await this.#file.close();
  }
}

async function statOrUndefined(path: string): Promise<BigIntStats | undefined> {
  try {
    return await stat(path, { bigint: true });
  } catch (thrown) {
    const error = PantalaError.from(thrown);
    if (error.code === 'not-found') return undefined;
    throw error;
  }
}

function* runsOf(chunks: readonly number[]): Generator<{ first: number; count: number }> {
  for (let at = 0; at < chunks.length; ) {
    const first = chunks[at] as number;
    let count = 1;
    while (chunks[at + count] === first + count) count++;
    yield { first, count };
    at += count;
  }
}

function alignUp(value: number): number {
  return Math.ceil(value / ALIGNMENT) * ALIGNMENT;
}
