import { AbortScope, type ByteString, PantalaError } from '@pantala/base';
import { isHole, type TarPiece } from '@pantala/oci';
import {
  type BlobEnd,
  type BlobInfo,
  BlobLayout,
  type Chunk,
  chunkDigest,
  compressed,
  DIGEST_LENGTH,
} from '@pantala/rafs';
import type { BlobSink } from './blob-sink.ts';
import { BuildPool, type BuildSeat } from './build-pool.ts';
import { ChunkLedger, digestKey, OWN_BLOB } from './chunk-ledger.ts';
import type { CompiledBuildOptions } from './options.ts';
import { type FileRead, MAX_PARCEL_CHUNKS, NOT_COMPRESSED, packReads, type Slot } from './parcel.ts';

/** A run of data in a file; between them are holes. Bytes. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** A file of a directory, which workers read by themselves. */
export interface FileOnDisk {
  readonly path: ByteString;
  /** Bytes. */
  readonly size: number;
  /** In order; undefined when all of it is data. */
  readonly extents?: readonly Extent[];
}

export interface BuiltBlob {
  /** Of the image, in order; the one that was built is the first, if it has chunks. */
  readonly blobs: readonly BlobInfo[];
  /** The one that was written; undefined when nothing was. */
  readonly written: { readonly id: string; readonly size: number } | undefined;
  /** Chunk information of the one that was built. */
  readonly meta: BlobEnd['meta'];
}

/** A list with a place for each chunk of a file. Its length is exact: one that grows takes room for sixteen more. */
export function chunkList(size: number, chunkSize: number): Chunk[] {
  return Array.from<Chunk>({ length: Math.ceil(size / chunkSize) });
}

/** Which file's list a chunk of a parcel belongs to. */
interface Entry {
  readonly list: Chunk[];
  /** Where in the list. */
  readonly at: number;
  readonly length: number;
  /** For chunks of nothing but zeros, which are not in the slot: how many of them follow each other. */
  readonly zeros: number;
  /** May go into a batch. */
  readonly small: boolean;
}

interface Parcel {
  readonly slot: Slot;
  readonly entries: Entry[];
  readonly lengths: number[];
  readonly reads: FileRead[];
  filled: number;
}

/**
 * Cuts files into chunks, has them digested and compressed by workers, and writes those that are new. What comes out
 * depends on the files and their order alone: workers end when they end, but chunks get their places in the order in
 * which they came. Who feeds it waits while it has no free memory.
 */
export class BlobBuilder implements AsyncDisposable {
  readonly #options: CompiledBuildOptions;
  readonly #sink: BlobSink;
  /** Ends with the build, too. */
  readonly #scope: AbortScope;
  readonly #ledger: ChunkLedger;
  readonly #layout: BlobLayout;
  readonly #pool: BuildPool;
  readonly #ownPool: BuildPool | undefined;
  readonly #seat: BuildSeat;
  /** Slots that are filled, worked on or written. */
  readonly #held = new Set<Slot>();
  readonly #zeroChunks = new Map<number, Chunk>();
  readonly #compression: { readonly lz4?: 'system' | 'bundled' };
  #open: Parcel | undefined;
  /** Everything that was sent to the workers has come back, well or not. */
  #returned: Promise<unknown> = Promise.resolve();
  /** Everything that was sent to the workers has been placed. */
  #placed: Promise<void> = Promise.resolve();
  /** Everything that was placed has been written. */
  #written: Promise<void> = Promise.resolve();
  #failure: PantalaError | undefined;

  /** @param pool made of the same options; without it the build has one of its own */
  constructor(options: CompiledBuildOptions, sink: BlobSink, signal?: AbortSignal, pool?: BuildPool) {
    const { compressor, digester, chunkSize, batchSize, toc, lz4 } = options;
    this.#options = options;
    this.#sink = sink;
    this.#compression = lz4 === undefined ? {} : { lz4 };
    this.#ledger = new ChunkLedger(options.dictionaries);
    this.#layout = new BlobLayout({ compressor, digester, chunkSize, batches: batchSize > 0, toc });
    this.#ownPool = pool === undefined ? new BuildPool(options) : undefined;
    this.#pool = pool ?? (this.#ownPool as BuildPool);
    this.#seat = this.#pool.take();
    for (const digest of this.#ledger.offered()) this.#seat.known.add(digest);
    this.#scope = new AbortScope([signal]);
  }

  /**
   * Takes the content of a file from a stream. One call at a time.
   *
   * @param size bytes of all pieces
   * @param list made by `chunkList`; it is complete when the blob is finished
   * @throws what the stream throws; the reason of the signal; what has failed elsewhere
   */
  async addStream(size: number, pieces: AsyncIterable<TarPiece>, list: Chunk[]): Promise<void> {
    const { chunkSize } = this.#options;
    let left = size;
    /** The chunk that is being filled: how long it will be, and how much of it is there. */
    let length = Math.min(chunkSize, left);
    let filled = 0;
    let parcel: Parcel | undefined;
    for await (const piece of pieces) {
      let at = 0;
      while (at < piece.length && left > 0) {
        if (isHole(piece) && filled === 0 && piece.length - at >= length) {
          const count =
            length < chunkSize
              ? 1
              : Math.min(Math.floor((piece.length - at) / chunkSize), Math.floor(left / chunkSize));
          await this.#addZeros({ list, at: (size - left) / chunkSize, length, zeros: count, small: false });
          at += count * length;
          left -= count * length;
          length = Math.min(chunkSize, left);
          continue;
        }
        parcel ??= await this.#room(length);
        const step = Math.min(piece.length - at, length - filled);
        const target = parcel.filled + filled;
        if (isHole(piece)) parcel.slot.content.fill(0, target, target + step);
        else parcel.slot.content.set(piece.subarray(at, at + step), target);
        at += step;
        filled += step;
        left -= step;
        if (filled < length) continue;
        this.#addChunk(parcel, {
          list,
          at: (size - left - length) / chunkSize,
          length,
          zeros: 0,
          small: this.#isSmall(size),
        });
        length = Math.min(chunkSize, left);
        filled = 0;
        parcel = undefined;
      }
    }
    if (left > 0) throw new PantalaError('data-loss', `a file of ${size} bytes ends after ${size - left}`);
  }

  /** Takes a file of a directory, whose data workers read later. One call at a time. @throws as `addStream` */
  async addFile({ path, size, extents }: FileOnDisk, list: Chunk[]): Promise<void> {
    const { chunkSize } = this.#options;
    const data = extents ?? [{ offset: 0, length: size }];
    let first = 0;
    for (let start = 0; start < size; ) {
      const length = Math.min(chunkSize, size - start);
      while (first < data.length && endOf(data[first] as Extent) <= start) first += 1;
      const next = data[first];
      if (next === undefined || next.offset >= start + length) {
        const end = Math.min(next?.offset ?? size, size);
        const count = length < chunkSize ? 1 : Math.max(1, Math.floor((end - start) / chunkSize));
        await this.#addZeros({ list, at: start / chunkSize, length, zeros: count, small: false });
        start += count * length;
        continue;
      }
      const parcel = await this.#room(length);
      addReads(parcel, path, { offset: start, length }, data, first);
      this.#addChunk(parcel, { list, at: start / chunkSize, length, zeros: 0, small: this.#isSmall(size) });
      start += length;
    }
  }

  /**
   * Writes what follows the data. Nothing can be added afterwards.
   *
   * @param bootstrap makes the one that is to lie in the blob of these blobs; needed when it is to be inlined
   * @throws the first failure of all
   */
  async finish(bootstrap?: (blobs: readonly BlobInfo[]) => Uint8Array): Promise<BuiltBlob> {
    this.#send();
    await this.#placed;
    await this.#closeBatch();
    await this.#written;
    if (this.#failure !== undefined) throw this.#failure;
    const dataDigest = await this.#seat.hash.digest();
    let blobs: BlobInfo[] | undefined;
    const inlined =
      bootstrap &&
      ((own: BlobInfo | undefined) => {
        blobs = this.#ledger.blobs(own);
        return bootstrap(blobs);
      });
    const { parts, blob, meta } = this.#layout.finish(dataDigest, inlined);
    blobs ??= this.#ledger.blobs(blob);
    await this.#write(parts);
    const size = this.#layout.storedSize + parts.reduce((sum, part) => sum + part.length, 0);
    if (size === 0) return { blobs, written: undefined, meta };
    const id = (await this.#seat.hash.digest()).toString('hex');
    return { blobs: blob === undefined ? blobs : [{ ...blob, id }, ...blobs.slice(1)], written: { id, size }, meta };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#fail(new PantalaError('cancelled', 'the build was given up'));
    await this.#ownPool?.[Symbol.asyncDispose]();
    await this.#placed;
    await this.#written;
    await this.#returned;
    for (const slot of this.#held) this.#pool.slots.release(slot);
    this.#held.clear();
    if (this.#ownPool === undefined) this.#pool.release(this.#seat);
    this.#scope[Symbol.dispose]();
  }

  /** A parcel with room for a chunk of this length. */
  async #room(length: number): Promise<Parcel> {
    const open = this.#open;
    if (open !== undefined) {
      if (open.filled + length <= open.slot.content.length && open.entries.length < MAX_PARCEL_CHUNKS) return open;
      this.#send();
    }
    if (this.#failure !== undefined) throw this.#failure;
    const slot = await this.#pool.slots.acquire(this.#scope.signal);
    this.#held.add(slot);
    this.#open = { slot, entries: [], lengths: [], reads: [], filled: 0 };
    return this.#open;
  }

  #addChunk(parcel: Parcel, entry: Entry): void {
    parcel.entries.push(entry);
    parcel.lengths.push(entry.small ? -entry.length : entry.length);
    parcel.filled += entry.length;
  }

  async #addZeros(entry: Entry): Promise<void> {
    const parcel = await this.#room(0);
    parcel.entries.push(entry);
  }

  #isSmall(size: number): boolean {
    return size < this.#options.batchSize / 2;
  }

  /** Gives the open parcel to the workers; it is placed after all that came before it. */
  #send(): void {
    const parcel = this.#open;
    if (parcel === undefined) return;
    this.#open = undefined;
    const { slot, lengths, reads } = parcel;
    const job = {
      kind: 'chunks',
      slot: slot.index,
      seat: this.#seat.number,
      lengths: Int32Array.from(lengths),
      reads: packReads(reads),
    } as const;
    const done = lengths.length === 0 ? Promise.resolve() : this.#pool.workers.run(job);
    this.#returned = Promise.allSettled([this.#returned, done]);
    // Its turn may come much later than its failure.
    done.catch((error: unknown) => this.#fail(error));
    this.#placed = this.#placed.then(async () => {
      if (this.#failure !== undefined) return;
      await done;
      await this.#place(parcel);
    });
    this.#placed = this.#placed.catch((error: unknown) => this.#fail(error));
  }

  async #place({ slot, entries }: Parcel): Promise<void> {
    const parts: Uint8Array[] = [];
    let at = 0;
    let index = 0;
    for (const { list, at: position, length, zeros, small } of entries) {
      if (zeros > 0) {
        const chunk = this.#zeroChunks.get(length) ?? (await this.#addZeroChunk(length, parts));
        list.fill(chunk, position, position + zeros);
        continue;
      }
      const digest = slot.digests.subarray(index * DIGEST_LENGTH, (index + 1) * DIGEST_LENGTH);
      const key = digestKey(digest);
      let chunk = this.#ledger.find(key, length);
      if (chunk === undefined && small) {
        chunk = await this.#addToBatch(digest, slot.content.subarray(at, at + length), parts);
      } else if (chunk === undefined) {
        await this.#closeBatch(parts);
        chunk = this.#addNew(digest, length, this.#storedBytes(slot, at, length, slot.stored[index] as number), parts);
      }
      list[position] = chunk;
      at += length;
      index += 1;
    }
    const written = this.#write(parts);
    const release = () => {
      this.#held.delete(slot);
      this.#pool.slots.release(slot);
    };
    this.#written = written.then(release).catch((error: unknown) => this.#fail(error));
  }

  #storedBytes(slot: Slot, at: number, length: number, stored: number): Uint8Array {
    const content = slot.content.subarray(at, at + length);
    if (stored === length) return content;
    if (stored !== NOT_COMPRESSED) return slot.compressed.subarray(at, at + stored);
    // A worker took its digest for one that is known, which it is not.
    return compressed(this.#options.compressor, content, this.#compression) ?? content;
  }

  #addNew(digest: Uint8Array, length: number, stored: Uint8Array, parts: Uint8Array[]): Chunk {
    const chunk = this.#layout.add(OWN_BLOB, Buffer.from(digest), length, stored.length);
    this.#ledger.add(chunk);
    this.#seat.known.add(digest);
    parts.push(stored);
    return chunk;
  }

  async #addZeroChunk(length: number, parts: Uint8Array[]): Promise<Chunk> {
    const content = Buffer.alloc(length);
    const digest = chunkDigest(this.#options.digester, content);
    let chunk = this.#ledger.find(digestKey(digest), length);
    if (chunk === undefined) {
      await this.#closeBatch(parts);
      const stored = compressed(this.#options.compressor, content, this.#compression) ?? content;
      chunk = this.#addNew(digest, length, stored, parts);
    }
    this.#zeroChunks.set(length, chunk);
    return chunk;
  }

  async #addToBatch(digest: Uint8Array, content: Uint8Array, parts: Uint8Array[]): Promise<Chunk> {
    if (this.#layout.openBatch + content.length > this.#options.batchSize) await this.#closeBatch(parts);
    this.#seat.batch?.content.set(content, this.#layout.openBatch);
    const chunk = this.#layout.addToBatch(OWN_BLOB, Buffer.from(digest), content.length);
    this.#ledger.add(chunk);
    this.#seat.known.add(digest);
    return chunk;
  }

  /** @param parts what comes before the batch and is not written yet */
  async #closeBatch(parts: Uint8Array[] = []): Promise<void> {
    const length = this.#layout.openBatch;
    const slot = this.#seat.batch;
    if (length === 0 || slot === undefined) return;
    await this.#pool.workers.run({ kind: 'batch', slot: slot.index, length }, true);
    const stored = slot.stored[0] as number;
    this.#layout.closeBatch(stored);
    await this.#write([...parts.splice(0), this.#storedBytes(slot, 0, length, stored)]);
  }

  /** Hashes and writes in order, both at the same time. */
  async #write(parts: readonly Uint8Array[]): Promise<void> {
    const before = this.#written;
    // A parcel of which everything is stored already waits for its turn, too: the next one comes after it.
    if (parts.length === 0) return before;
    const hashed = this.#seat.hash.update(parts);
    const written = before.then(async () => {
      if (this.#failure === undefined) await this.#sink.write(parts);
    });
    await Promise.all([hashed, written]);
  }

  #fail(error: unknown): void {
    this.#failure ??= PantalaError.from(error);
    this.#scope.abort(this.#failure);
  }
}

function endOf({ offset, length }: Extent): number {
  return offset + length;
}

/** In the place of a path. */
const HOLE = '';

/** What of a chunk is data and what a hole. */
function addReads(parcel: Parcel, path: ByteString, chunk: Extent, data: readonly Extent[], first: number): void {
  const end = endOf(chunk);
  const add = (from: number, to: number, source: ByteString) => {
    if (from >= to) return;
    parcel.reads.push({ path: source, offset: from, length: to - from, at: parcel.filled + from - chunk.offset });
  };
  let at = chunk.offset;
  for (let index = first; index < data.length; index++) {
    const extent = data[index] as Extent;
    if (extent.offset >= end) break;
    const from = Math.max(at, extent.offset);
    add(at, from, HOLE);
    at = Math.min(end, endOf(extent));
    add(from, at, path);
  }
  add(at, end, HOLE);
}
