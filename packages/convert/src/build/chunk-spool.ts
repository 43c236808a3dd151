import { randomBytes } from 'node:crypto';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { PantalaError } from '@pantala/base';
import { decompress } from '@pantala/rafs';
import { type ChunkContents, type SlotContents, storedOf } from './chunk-contents.ts';
import { digestKey } from './chunk-ledger.ts';
import type { KnownDigests } from './known-digests.ts';
import type { WaitingChunk } from './open-parcel.ts';
import type { CompiledBuildOptions } from './options.ts';
import { MAX_PARCEL_CHUNKS } from './parcel.ts';
import { writeWhole } from './whole-writes.ts';

/** Bytes in the spool: of a chunk as it goes into the blob, or of its content, which no worker has compressed. */
interface Spooled {
  readonly offset: number;
  readonly length: number;
  readonly isContent: boolean;
}

interface SpooledChunk {
  readonly digest: Buffer;
  readonly bytes: Spooled;
}

/** Chunks that get their places together. */
export interface SpoolGroup {
  readonly chunks: WaitingChunk[];
  /** Of those that are not zeros. */
  readonly spooled: SpooledChunk[];
  /** What of them is read, in this order: not again what an earlier one has brought. */
  readonly reads: Spooled[];
}

interface SpoolRecord {
  readonly chunk: WaitingChunk;
  readonly spooled: SpooledChunk | undefined;
}

/**
 * Chunks of a stream that are to lie in the blob in another order than they come in: each content once in a file
 * without a name, which is gone with the process, and a record of each chunk in memory.
 */
export class ChunkSpool implements AsyncDisposable {
  readonly #folder: string;
  readonly #options: CompiledBuildOptions;
  readonly #known: KnownDigests;
  readonly #records: SpoolRecord[] = [];
  readonly #bytes = new Map<string, Spooled>();
  #file: FileHandle | undefined;
  #end = 0;

  /** @param known is told of what need not be compressed again */
  constructor(folder: string, options: CompiledBuildOptions, known: KnownDigests) {
    this.#folder = folder;
    this.#options = options;
    this.#known = known;
  }

  /** Resolves when the contents are no longer needed. One call at a time. */
  async add(chunks: readonly WaitingChunk[], contents: SlotContents): Promise<void> {
    const parts: Uint8Array[] = [];
    let number = 0;
    for (const chunk of chunks) {
      if (chunk.zeros > 0) {
        this.#records.push({ chunk, spooled: undefined });
        continue;
      }
      const digest = Buffer.from(contents.digest(number));
      const key = digestKey(digest);
      let bytes = this.#bytes.get(key);
      if (bytes === undefined) {
        const isContent = !contents.isStored(number);
        const part = isContent ? contents.content(number) : contents.stored(number);
        bytes = { offset: this.#end, length: part.length, isContent };
        this.#bytes.set(key, bytes);
        this.#known.add(digest);
        this.#end += part.length;
        parts.push(part);
      }
      this.#records.push({ chunk, spooled: { digest, bytes } });
      number += 1;
    }
    this.#file ??= await openNameless(this.#folder);
    await writeWhole(this.#file, parts);
  }

  /** Everything, by rank, and as it came within one. @param maxLength bytes that one group reads */
  *groups(maxLength: number): Generator<SpoolGroup, void, undefined> {
    const seen = new Set<Spooled>();
    let group: SpoolGroup = { chunks: [], spooled: [], reads: [] };
    let length = 0;
    for (const { chunk, spooled } of this.#records.toSorted((a, b) => a.chunk.rank - b.chunk.rank)) {
      const read = spooled === undefined || seen.has(spooled.bytes) ? undefined : spooled.bytes;
      if (length + (read?.length ?? 0) > maxLength || group.chunks.length === MAX_PARCEL_CHUNKS) {
        yield group;
        group = { chunks: [], spooled: [], reads: [] };
        length = 0;
      }
      group.chunks.push(chunk);
      if (spooled !== undefined) group.spooled.push(spooled);
      if (read === undefined) continue;
      seen.add(read);
      group.reads.push(read);
      length += read.length;
    }
    if (group.chunks.length > 0) yield group;
  }

  /** @param target has room for all that the group reads */
  async read({ spooled, reads }: SpoolGroup, target: Uint8Array): Promise<ChunkContents> {
    const places = new Map<Spooled, Uint8Array>();
    let at = 0;
    for (const bytes of reads) {
      places.set(bytes, target.subarray(at, at + bytes.length));
      at += bytes.length;
    }
    at = 0;
    for (const { offset, length } of neighbours(reads)) {
      await readWhole(this.#file as FileHandle, target.subarray(at, at + length), offset);
      at += length;
    }
    return new SpooledContents(spooled, places, this.#options);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file?.close();
  }
}

class SpooledContents implements ChunkContents {
  readonly #chunks: readonly SpooledChunk[];
  readonly #places: ReadonlyMap<Spooled, Uint8Array>;
  readonly #options: CompiledBuildOptions;

  constructor(
    chunks: readonly SpooledChunk[],
    places: ReadonlyMap<Spooled, Uint8Array>,
    options: CompiledBuildOptions,
  ) {
    this.#chunks = chunks;
    this.#places = places;
    this.#options = options;
  }

  digest(number: number): Uint8Array {
    return this.#chunk(number).digest;
  }

  content(number: number, length: number): Uint8Array {
    const bytes = this.#bytes(number);
    if (this.#chunk(number).bytes.isContent || bytes.length === length) return bytes;
    return decompress(this.#options.compressor, bytes, length);
  }

  stored(number: number): Uint8Array {
    const bytes = this.#bytes(number);
    return this.#chunk(number).bytes.isContent ? storedOf(this.#options, bytes) : bytes;
  }

  #chunk(number: number): SpooledChunk {
    return this.#chunks[number] as SpooledChunk;
  }

  #bytes(number: number): Uint8Array {
    const bytes = this.#places.get(this.#chunk(number).bytes);
    // The first of equal chunks gets its place, the others have the same.
    if (bytes === undefined) throw new PantalaError('internal', 'a chunk that was placed is wanted again');
    return bytes;
  }
}

/** Reads that go on where the one before ended are one. */
function* neighbours(reads: readonly Spooled[]): Generator<{ readonly offset: number; readonly length: number }> {
  let open: { offset: number; length: number } | undefined;
  for (const { offset, length } of reads) {
    if (open !== undefined && open.offset + open.length === offset) {
      open.length += length;
      continue;
    }
    if (open !== undefined) yield open;
    open = { offset, length };
  }
  if (open !== undefined) yield open;
}

async function openNameless(folder: string): Promise<FileHandle> {
  const path = join(folder, `.pantala-${randomBytes(8).toString('hex')}.spool`);
  const file = await open(path, 'wx+', 0o600);
  await rm(path);
  return file;
}

async function readWhole(file: FileHandle, target: Uint8Array, offset: number): Promise<void> {
  for (let filled = 0; filled < target.length; ) {
    const { bytesRead } = await file.read(target, filled, target.length - filled, offset + filled);
    if (bytesRead === 0) throw new PantalaError('data-loss', 'what was kept for the end of the build is gone');
    filled += bytesRead;
  }
}
