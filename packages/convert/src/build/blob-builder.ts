import { PantalaError } from '@pantala/base';
import { isHole, type TarPiece } from '@pantala/oci';
import type { BlobInfo, Chunk } from '@pantala/rafs';
import type { BlobSink } from './blob-sink.ts';
import { BlobWriter, type BuiltBlob } from './blob-writer.ts';
import { BuildPool, type BuildSeat } from './build-pool.ts';
import { BuildStop } from './build-stop.ts';
import { SlotContents } from './chunk-contents.ts';
import { ChunkSpool } from './chunk-spool.ts';
import { type Extent, endOf, type FileOnDisk } from './file-on-disk.ts';
import { OpenParcel, type WaitingChunk } from './open-parcel.ts';
import type { CompiledBuildOptions } from './options.ts';
import { packReads, type Slot } from './parcel.ts';

/** A list with a place for each chunk of a file. Its length is exact: one that grows takes room for sixteen more. */
export function chunkList(size: number, chunkSize: number): Chunk[] {
  return Array.from<Chunk>({ length: Math.ceil(size / chunkSize) });
}

export interface BlobBuilderOptions {
  /** Made of the same options. Default: one of its own. */
  readonly pool?: BuildPool | undefined;
  /**
   * Chunks come into the blob by the rank of their files, not in the order in which these are added. Until the end they
   * lie in a file of this folder. Default: they keep their order.
   */
  readonly spoolFolder?: string | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * Cuts files into chunks, has them digested and compressed by workers, and writes those that are new. What comes out
 * depends on the files and their order alone: workers end when they end, but chunks get their places in the order in
 * which they came. Who feeds it waits while it has no free memory.
 */
export class BlobBuilder implements AsyncDisposable {
  readonly #options: CompiledBuildOptions;
  /** Ends with the build, too. */
  readonly #stop: BuildStop;
  readonly #pool: BuildPool;
  readonly #ownPool: BuildPool | undefined;
  readonly #seat: BuildSeat;
  readonly #writer: BlobWriter;
  readonly #spool: ChunkSpool | undefined;
  /** Slots that are filled, worked on or written. */
  readonly #held = new Set<Slot>();
  #open: OpenParcel | undefined;
  /** Everything that was sent to the workers has come back, well or not. */
  #returned: Promise<unknown> = Promise.resolve();
  /** Everything that was sent to the workers has been placed. */
  #placed: Promise<void> = Promise.resolve();

  constructor(options: CompiledBuildOptions, sink: BlobSink, { pool, spoolFolder, signal }: BlobBuilderOptions = {}) {
    this.#options = options;
    this.#ownPool = pool === undefined ? new BuildPool(options) : undefined;
    this.#pool = pool ?? (this.#ownPool as BuildPool);
    this.#seat = this.#pool.take();
    this.#stop = new BuildStop(signal);
    this.#writer = new BlobWriter(options, sink, this.#pool, this.#seat, this.#stop);
    this.#spool = spoolFolder === undefined ? undefined : new ChunkSpool(spoolFolder, options, this.#seat.known);
  }

  /**
   * Takes the content of a file from a stream. One call at a time.
   *
   * @param size bytes of all pieces
   * @param list made by `chunkList`; it is complete when the blob is finished
   * @param rank of the file, where ranks count
   * @throws what the stream throws; the reason of the signal; what has failed elsewhere
   */
  async addStream(size: number, pieces: AsyncIterable<TarPiece>, list: Chunk[], rank = 0): Promise<void> {
    const { chunkSize } = this.#options;
    const small = this.#isSmall(size);
    let left = size;
    /** The chunk that is being filled: how long it will be, and how much of it is there. */
    let length = Math.min(chunkSize, left);
    let filled = 0;
    let parcel: OpenParcel | undefined;
    for await (const piece of pieces) {
      let at = 0;
      while (at < piece.length && left > 0) {
        if (isHole(piece) && filled === 0 && piece.length - at >= length) {
          const count =
            length < chunkSize
              ? 1
              : Math.min(Math.floor((piece.length - at) / chunkSize), Math.floor(left / chunkSize));
          await this.#addZeros({ list, at: (size - left) / chunkSize, length, zeros: count, small: false, rank });
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
        parcel.add({ list, at: (size - left - length) / chunkSize, length, zeros: 0, small, rank });
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
        await this.#addZeros({ list, at: start / chunkSize, length, zeros: count, small: false, rank: 0 });
        start += count * length;
        continue;
      }
      const parcel = await this.#room(length);
      parcel.read(path, { offset: start, length }, data, first);
      parcel.add({ list, at: start / chunkSize, length, zeros: 0, small: this.#isSmall(size), rank: 0 });
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
    this.#stop.throwIfFailed();
    if (this.#spool !== undefined) await this.#placeSpooled(this.#spool);
    return await this.#writer.finish(bootstrap);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.fail(new PantalaError('cancelled', 'the build was given up'));
    await this.#ownPool?.[Symbol.asyncDispose]();
    await this.#placed;
    await this.#writer.written;
    await this.#returned;
    await this.#spool?.[Symbol.asyncDispose]();
    for (const slot of this.#held) this.#pool.slots.release(slot);
    this.#held.clear();
    if (this.#ownPool === undefined) this.#pool.release(this.#seat);
    this.#stop[Symbol.dispose]();
  }

  /** A parcel with room for a chunk of this length. */
  async #room(length: number): Promise<OpenParcel> {
    if (this.#open?.hasRoom(length) === true) return this.#open;
    this.#send();
    this.#open = new OpenParcel(await this.#takeSlot());
    return this.#open;
  }

  async #addZeros(chunk: WaitingChunk): Promise<void> {
    const parcel = await this.#room(0);
    parcel.addZeros(chunk);
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
    done.catch(this.#stop.fail);
    this.#placed = this.#placed.then(async () => {
      if (this.#stop.failure !== undefined) return;
      await done;
      await this.#place(parcel);
    });
    this.#placed = this.#placed.catch(this.#stop.fail);
  }

  async #place({ slot, chunks, lengths }: OpenParcel): Promise<void> {
    const contents = new SlotContents(slot, lengths, this.#options);
    const release = () => this.#giveSlot(slot);
    if (this.#spool === undefined) return await this.#writer.place(chunks, contents, release);
    await this.#spool.add(chunks, contents);
    release();
  }

  async #placeSpooled(spool: ChunkSpool): Promise<void> {
    for (const group of spool.groups(this.#pool.slots.length)) {
      const slot = await this.#takeSlot();
      const contents = await spool.read(group, slot.content);
      await this.#writer.place(group.chunks, contents, () => this.#giveSlot(slot));
    }
  }

  async #takeSlot(): Promise<Slot> {
    this.#stop.throwIfFailed();
    const slot = await this.#pool.slots.acquire(this.#stop.signal);
    this.#held.add(slot);
    return slot;
  }

  #giveSlot(slot: Slot): void {
    this.#held.delete(slot);
    this.#pool.slots.release(slot);
  }
}
