import type { ChunkLayout } from './chunk-layout.ts';
import { prefixOf } from './chunk-table.ts';
import type { ClosedBlobs } from './closed-blobs.ts';
import { readRange } from './file-range.ts';
import { PrefixTable } from './prefix-table.ts';

/** A blob in use, whose chunks others may copy. */
export interface ChunkHolder {
  readonly layout: ChunkLayout;
  /** Of the cache file. */
  readonly descriptor: number;
  /** Keeps the file open until it is disposed; undefined when it is being closed. */
  lend(): Disposable | undefined;
  holds(chunk: number): boolean;
}

/** A chunk's content as another blob has it, checked. */
export interface FoundChunk extends AsyncDisposable {
  readonly blobId: string;
  /** Of that blob's file, open until this is disposed, and where in it the chunk begins. */
  readonly descriptor: number;
  readonly start: number;
  readonly content: Buffer;
}

/** Finds chunks of other blobs by their digest, of those in use first. */
export class ChunkIndex {
  readonly #tables = new Map<ChunkHolder, PrefixTable | undefined>();
  readonly #closed: ClosedBlobs;

  constructor(closed: ClosedBlobs) {
    this.#closed = closed;
  }

  add(holder: ChunkHolder): void {
    this.#tables.set(holder, undefined);
  }

  remove(holder: ChunkHolder): void {
    this.#tables.delete(holder);
  }

  /** The content of a chunk with the digest and length of this one, as some other blob holds it. */
  async find(layout: ChunkLayout, chunk: number, besides: ChunkHolder): Promise<FoundChunk | undefined> {
    const digest = layout.digestOf(chunk);
    const { start, end } = layout.rangeOf(chunk);
    for (const holder of this.#tables.keys()) {
      if (holder === besides) continue;
      for (const candidate of this.#tableOf(holder).find(prefixOf(digest))) {
        const range = holder.layout.rangeOf(candidate);
        if (range.end - range.start !== end - start || !holder.holds(candidate)) continue;
        if (Buffer.compare(holder.layout.digestOf(candidate), digest) !== 0) continue;
        const loan = holder.lend();
        if (loan === undefined) continue;
        const content = await readRange(holder.descriptor, range).catch(() => undefined);
        if (content === undefined || !layout.matches(chunk, content)) loan[Symbol.dispose]();
        else {
          return {
            blobId: holder.layout.blobId,
            descriptor: holder.descriptor,
            start: range.start,
            content,
            [Symbol.asyncDispose]: async () => loan[Symbol.dispose](),
          };
        }
      }
    }
    return this.#closed.find(digest, end - start, (content) => layout.matches(chunk, content));
  }

  #tableOf(holder: ChunkHolder): PrefixTable {
    let table = this.#tables.get(holder);
    if (table === undefined) {
      const { layout } = holder;
      const prefixes = new Uint32Array(layout.chunkCount);
      for (let chunk = 0; chunk < layout.chunkCount; chunk++) prefixes[chunk] = prefixOf(layout.digestOf(chunk));
      table = new PrefixTable(prefixes);
      this.#tables.set(holder, table);
    }
    return table;
  }
}
