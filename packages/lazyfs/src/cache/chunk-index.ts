import type { ChunkLayout } from './chunk-layout.ts';
import { readRange } from './file-range.ts';

/** A blob whose chunks others may copy. */
export interface ChunkHolder {
  readonly layout: ChunkLayout;
  /** Of the cache file. */
  readonly descriptor: number;
  holds(chunk: number): boolean;
}

export interface FoundChunk {
  readonly holder: ChunkHolder;
  readonly chunk: number;
  readonly content: Buffer;
}

/** Finds chunks of other blobs by their digest. */
export class ChunkIndex {
  readonly #tables = new Map<ChunkHolder, Uint32Array | undefined>();

  add(holder: ChunkHolder): void {
    this.#tables.set(holder, undefined);
  }

  remove(holder: ChunkHolder): void {
    this.#tables.delete(holder);
  }

  /** The content of a chunk with the digest and length of this one, as some other blob holds it: read and checked. */
  async find(layout: ChunkLayout, chunk: number, besides: ChunkHolder): Promise<FoundChunk | undefined> {
    const digest = layout.digestOf(chunk);
    const { start, end } = layout.rangeOf(chunk);
    for (const [holder] of this.#tables) {
      if (holder === besides) continue;
      for (const candidate of this.#candidates(holder, digest)) {
        const range = holder.layout.rangeOf(candidate);
        if (range.end - range.start !== end - start || !holder.holds(candidate)) continue;
        const content = await readRange(holder.descriptor, range).catch(() => undefined);
        if (content !== undefined && layout.matches(chunk, content)) return { holder, chunk: candidate, content };
      }
    }
    return undefined;
  }

  *#candidates(holder: ChunkHolder, digest: Uint8Array): Generator<number> {
    let table = this.#tables.get(holder);
    if (table === undefined) {
      table = tableOf(holder.layout);
      this.#tables.set(holder, table);
    }
    const mask = table.length - 1;
    for (let slot = hash(digest) & mask; table[slot] !== 0; slot = (slot + 1) & mask) {
      const chunk = (table[slot] as number) - 1;
      if (Buffer.compare(holder.layout.digestOf(chunk), digest) === 0) yield chunk;
    }
  }
}

/** Open addressing: chunk + 1 at the first free slot from where its digest points; half of the slots stay free. */
function tableOf(layout: ChunkLayout): Uint32Array {
  let slots = 4;
  while (slots < layout.chunkCount * 2) slots *= 2;
  const table = new Uint32Array(slots);
  for (let chunk = 0; chunk < layout.chunkCount; chunk++) {
    let slot = hash(layout.digestOf(chunk)) & (slots - 1);
    while (table[slot] !== 0) slot = (slot + 1) & (slots - 1);
    table[slot] = chunk + 1;
  }
  return table;
}

/** A digest's own first bytes are as good as any hash of it. */
function hash(digest: Uint8Array): number {
  const [a = 0, b = 0, c = 0, d = 0] = digest;
  return (a | (b << 8) | (c << 16) | (d << 24)) >>> 0;
}
