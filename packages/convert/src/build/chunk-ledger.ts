import { type BlobInfo, type Chunk, chunksByBlob, type RafsImage } from '@pantala/rafs';

/** A chunk whose blob gets its final index at the end. */
type Placed = { -readonly [Key in keyof Chunk]: Chunk[Key] };

/** Index of the blob that is being built, while it is built. */
export const OWN_BLOB = 0;

interface Offer {
  readonly chunk: Chunk;
  readonly blob: BlobInfo;
}

/**
 * Which content is stored already: in the blob that is being built, or in those of dictionaries. A digest has 256
 * bits, so equal ones mean equal content.
 */
export class ChunkLedger {
  readonly #known = new Map<string, Placed>();
  readonly #offered = new Map<string, Offer>();
  /** Blobs of dictionaries that chunks were taken from, in the order of first use. */
  readonly #taken = new Map<BlobInfo, number>();

  constructor(dictionaries: readonly RafsImage[]) {
    for (const image of dictionaries) {
      for (const [index, chunks] of chunksByBlob(image).entries()) {
        const blob = image.blobs[index] as BlobInfo;
        for (const chunk of chunks) {
          const key = digestKey(chunk.digest);
          if (!this.#offered.has(key)) this.#offered.set(key, { chunk, blob });
        }
      }
    }
  }

  /** Digests of the dictionaries. */
  *offered(): Generator<Uint8Array, void, undefined> {
    for (const { chunk } of this.#offered.values()) yield chunk.digest;
  }

  /** @param key made by `digestKey` */
  find(key: string, size: number): Chunk | undefined {
    const known = this.#known.get(key);
    if (known !== undefined) return known;
    const offer = this.#offered.get(key);
    if (offer === undefined || offer.chunk.uncompressedSize !== size) return undefined;
    const index = this.#taken.get(offer.blob) ?? OWN_BLOB + 1 + this.#taken.size;
    this.#taken.set(offer.blob, index);
    const chunk = { ...offer.chunk, blobIndex: index };
    this.#known.set(key, chunk);
    return chunk;
  }

  add(chunk: Chunk): void {
    this.#known.set(digestKey(chunk.digest), chunk);
  }

  /** The blobs of the image; without an own one, those of the dictionaries move up. */
  blobs(own: BlobInfo | undefined): BlobInfo[] {
    const taken = [...this.#taken.keys()];
    if (own !== undefined) return [own, ...taken];
    for (const chunk of this.#known.values()) chunk.blobIndex -= 1;
    return taken;
  }
}

/** Digests as keys of maps. */
export function digestKey(digest: Uint8Array): string {
  return Buffer.from(digest.buffer, digest.byteOffset, digest.byteLength).toString('latin1');
}
