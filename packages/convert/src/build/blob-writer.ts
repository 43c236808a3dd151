import { type BlobEnd, type BlobInfo, BlobLayout, type Chunk, chunkDigest } from '@pantala/rafs';
import type { BlobSink } from './blob-sink.ts';
import type { BuildPool, BuildSeat } from './build-pool.ts';
import type { BuildStop } from './build-stop.ts';
import { type ChunkContents, storedOf } from './chunk-contents.ts';
import { ChunkLedger, digestKey, OWN_BLOB } from './chunk-ledger.ts';
import type { WaitingChunk } from './open-parcel.ts';
import type { CompiledBuildOptions } from './options.ts';

export interface BuiltBlob {
  /** Of the image, in order; the one that was built is the first, if it has chunks. */
  readonly blobs: readonly BlobInfo[];
  /** The one that was written; undefined when nothing was. */
  readonly written: { readonly id: string; readonly size: number } | undefined;
  /** Chunk information of the one that was built. */
  readonly meta: BlobEnd['meta'];
}

/** Gives chunks their places in the blob, in the order in which they are handed over, and writes those that are new. */
export class BlobWriter {
  readonly #options: CompiledBuildOptions;
  readonly #sink: BlobSink;
  readonly #pool: BuildPool;
  readonly #seat: BuildSeat;
  readonly #stop: BuildStop;
  readonly #ledger: ChunkLedger;
  readonly #layout: BlobLayout;
  readonly #zeroChunks = new Map<number, Chunk>();
  /** Everything that was placed has been written. */
  #written: Promise<void> = Promise.resolve();

  constructor(options: CompiledBuildOptions, sink: BlobSink, pool: BuildPool, seat: BuildSeat, stop: BuildStop) {
    const { compressor, digester, chunkSize, batchSize, toc } = options;
    this.#options = options;
    this.#sink = sink;
    this.#pool = pool;
    this.#seat = seat;
    this.#stop = stop;
    this.#ledger = new ChunkLedger(options.dictionaries);
    this.#layout = new BlobLayout({ compressor, digester, chunkSize, batches: batchSize > 0, toc });
    for (const digest of this.#ledger.offered()) seat.known.add(digest);
  }

  /** Everything that was placed has been written, or the build has failed. */
  get written(): Promise<void> {
    return this.#written;
  }

  /**
   * Called again only when it has resolved.
   *
   * @param release called when nothing needs the contents any more, unless the build fails
   */
  async place(chunks: readonly WaitingChunk[], contents: ChunkContents, release: () => void): Promise<void> {
    const parts: Uint8Array[] = [];
    let number = 0;
    for (const { list, at, length, zeros, small } of chunks) {
      if (zeros > 0) {
        const chunk = this.#zeroChunks.get(length) ?? (await this.#addZeroChunk(length, parts));
        list.fill(chunk, at, at + zeros);
        continue;
      }
      const digest = contents.digest(number);
      let chunk = this.#ledger.find(digestKey(digest), length);
      if (chunk === undefined && small) {
        chunk = await this.#addToBatch(digest, contents.content(number, length), parts);
      } else if (chunk === undefined) {
        await this.#closeBatch(parts);
        chunk = this.#addNew(digest, length, contents.stored(number), parts);
      }
      list[at] = chunk;
      number += 1;
    }
    this.#written = this.#write(parts).then(release).catch(this.#stop.fail);
  }

  /**
   * Writes what follows the data.
   *
   * @param bootstrap makes the one that is to lie in the blob of these blobs; needed when it is to be inlined
   * @throws the first failure of all
   */
  async finish(bootstrap?: (blobs: readonly BlobInfo[]) => Uint8Array): Promise<BuiltBlob> {
    await this.#closeBatch();
    await this.#written;
    this.#stop.throwIfFailed();
    const dataDigest = await this.#seat.stream.digest();
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
    const id = (await this.#seat.stream.digest()).toString('hex');
    return { blobs: blob === undefined ? blobs : [{ ...blob, id }, ...blobs.slice(1)], written: { id, size }, meta };
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
      chunk = this.#addNew(digest, length, storedOf(this.#options, content), parts);
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
    const bytes = stored === length ? slot.content : slot.compressed;
    await this.#write([...parts.splice(0), bytes.subarray(0, stored)]);
  }

  /** Digests and writes in order. */
  async #write(given: readonly Uint8Array[]): Promise<void> {
    const before = this.#written;
    // A parcel of which everything is stored already waits for its turn, too: the next one comes after it.
    if (given.length === 0) return before;
    const parts = joined(given);
    const sink = this.#sink;
    if ('descriptor' in sink) {
      await Promise.all([before, this.#seat.stream.add(parts, sink.descriptor)]);
      return;
    }
    const written = before.then(async () => {
      if (this.#stop.failure === undefined) await sink.write(parts);
    });
    await Promise.all([this.#seat.stream.add(parts), written]);
  }
}

/** The same bytes; neighbours in memory are one part: each costs something to send to a thread and to the kernel. */
function joined(parts: readonly Uint8Array[]): Uint8Array[] {
  const result: Uint8Array[] = [];
  for (const part of parts) {
    const last = result.at(-1);
    if (last?.buffer === part.buffer && last.byteOffset + last.length === part.byteOffset)
      result[result.length - 1] = new Uint8Array(last.buffer, last.byteOffset, last.length + part.length);
    else result.push(part);
  }
  return result;
}
