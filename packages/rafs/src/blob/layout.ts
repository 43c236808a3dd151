import { PantalaError } from '@pantala/base';
import { compressed } from '../codec/compression.ts';
import { DIGEST_LENGTH, sha256 } from '../codec/digests.ts';
import { BLOB_FEATURES, type BlobInfo, type Chunk, type Compressor, type Digester } from '../image.ts';
import type { BatchContext } from './batch-context.ts';
import { type ChunkInformation, encodeChunkInformation } from './chunk-information.ts';
import {
  ALIGNMENT,
  alignUp,
  CHUNK_INFO_FLAGS,
  CHUNK_INFO_LENGTH,
  MAX_CHUNKS,
  MAX_DECODED_LENGTH,
  MAX_STORED_LENGTH,
} from './limits.ts';
import { encodeMetaHeader, type MetaHeader } from './meta-header.ts';
import { encodeSectionHeader, SECTIONS } from './section-header.ts';
import { encodeToc, type TocEntry } from './toc.ts';

export interface BlobLayoutOptions {
  readonly compressor: Compressor;
  readonly digester: Digester;
  /** Bytes of every chunk but a file's last. */
  readonly chunkSize: number;
  /** Small chunks may be compressed together. */
  readonly batches: boolean;
  /** The blob ends with a table of contents and has the digests of its chunks. */
  readonly toc: boolean;
}

/** What follows the data of a blob. */
export interface BlobEnd {
  /** In the order in which they are to be written. */
  readonly parts: readonly Uint8Array[];
  /** Undefined when the blob has no chunk. The id is a placeholder until the whole blob's SHA-256 is known. */
  readonly blob: BlobInfo | undefined;
  /** The chunk information as it is, with its header, as `blob.meta` beside a bootstrap has it. */
  readonly meta: { readonly information: Uint8Array; readonly header: Uint8Array } | undefined;
}

/** Stands where an inlined bootstrap would have to say the digest of the blob that it lies in. */
export const PLACEHOLDER_ID = 'x'.repeat(64);

const NO_DIGEST: Uint8Array = new Uint8Array(DIGEST_LENGTH);

/** Columns of the chunk information while it grows. */
interface Columns {
  readonly compressedOffset: number[];
  readonly compressedSize: number[];
  readonly uncompressedOffset: number[];
  readonly uncompressedSize: number[];
  readonly flags: number[];
  readonly context: number[];
  readonly contextOffset: number[];
}

/** Gives chunks their places in a new blob, in the order in which they are added, and makes what follows the data. */
export class BlobLayout {
  readonly #options: BlobLayoutOptions;
  readonly #columns: Columns = {
    compressedOffset: [],
    compressedSize: [],
    uncompressedOffset: [],
    uncompressedSize: [],
    flags: [],
    context: [],
    contextOffset: [],
  };
  readonly #digests: Uint8Array[] = [];
  readonly #batches: BatchContext[] = [];
  /** Bytes of the chunks of the batch that is open. */
  #openBatch = 0;
  #stored = 0;
  #decoded = 0;

  constructor(options: BlobLayoutOptions) {
    this.#options = options;
  }

  /** Chunks so far. */
  get count(): number {
    return this.#digests.length;
  }

  /** Bytes of data so far. */
  get storedSize(): number {
    return this.#stored;
  }

  /** Bytes of the open batch so far. */
  get openBatch(): number {
    return this.#openBatch;
  }

  /**
   * The next chunk of the blob, by itself.
   *
   * @param blobIndex of this blob in the image
   * @param storedSize bytes as which it is written; as many as `size` when it is not compressed
   * @throws `out-of-range` when the blob has no room for it
   */
  add(blobIndex: number, digest: Uint8Array, size: number, storedSize: number): Chunk {
    if (this.#openBatch > 0) throw new PantalaError('internal', 'a batch must be closed before another chunk');
    const isCompressed = storedSize !== size;
    const flags = isCompressed ? CHUNK_INFO_FLAGS.compressed : 0;
    const chunk = this.#place(blobIndex, digest, size, { storedSize, flags, context: 0, contextOffset: 0 });
    this.#stored += storedSize;
    return { ...chunk, compressed: isCompressed, batched: false };
  }

  /** The next chunk of the blob, in the batch that is open or begins with it. @throws `out-of-range` */
  addToBatch(blobIndex: number, digest: Uint8Array, size: number): Chunk {
    const chunk = this.#place(blobIndex, digest, size, {
      storedSize: 0,
      flags: CHUNK_INFO_FLAGS.compressed | CHUNK_INFO_FLAGS.batch,
      context: this.#batches.length,
      contextOffset: this.#openBatch,
    });
    this.#openBatch += size;
    return { ...chunk, compressed: true, batched: true };
  }

  /** @param storedSize bytes as which it is written; as many as its chunks have when it is not compressed */
  closeBatch(storedSize: number): void {
    this.#batches.push({ compressedSize: storedSize, uncompressedSize: this.#openBatch });
    this.#stored += storedSize;
    this.#openBatch = 0;
  }

  /**
   * @param dataDigest SHA-256 of the data as it was written
   * @param bootstrap makes the bootstrap that is to lie in the blob, when one is to
   */
  finish(dataDigest: Uint8Array, bootstrap?: (blob: BlobInfo | undefined) => Uint8Array): BlobEnd {
    const { toc: hasToc } = this.#options;
    if (this.count === 0 && bootstrap === undefined) return { parts: [], blob: undefined, meta: undefined };
    const headers = hasToc || bootstrap !== undefined;
    const writer = new SectionWriter(this.#stored, headers);
    const { blob: described, meta } = this.#describe(writer, dataDigest, headers, bootstrap !== undefined);
    if (bootstrap !== undefined) {
      const bytes = bootstrap(described && { ...described, compressedSize: writer.offset });
      const stored = hasToc ? compressed('zstd', bytes) : undefined;
      writer.section(SECTIONS.bootstrap, bytes, stored, 'zstd');
    }
    const toc = hasToc ? writer.toc() : undefined;
    return {
      parts: writer.parts,
      meta,
      blob: described && {
        ...described,
        features: described.features & ~BLOB_FEATURES.inlinedBootstrap,
        compressedSize: writer.offset,
        tocSize: toc?.length ?? 0,
        tocDigest: toc === undefined ? NO_DIGEST : sha256(toc),
      },
    };
  }

  #describe(
    writer: SectionWriter,
    dataDigest: Uint8Array,
    headers: boolean,
    inlined: boolean,
  ): { blob: BlobInfo | undefined; meta: BlobEnd['meta'] } {
    const { compressor, digester, chunkSize, batches, toc } = this.#options;
    if (this.count === 0) return { blob: undefined, meta: undefined };
    writer.data(this.#stored, this.#decoded, dataDigest);
    let features = BLOB_FEATURES.aligned | BLOB_FEATURES.tocCapable;
    if (batches) features |= BLOB_FEATURES.chunkInfoV2 | BLOB_FEATURES.batch;
    if (toc) features |= BLOB_FEATURES.inlinedDigests | BLOB_FEATURES.toc;
    if (headers) features |= BLOB_FEATURES.tarHeaders;
    if (inlined) features |= BLOB_FEATURES.inlinedBootstrap;
    const information = encodeChunkInformation(this.#information(), batches ? 2 : 1);
    // Tables of contents know no LZ4, so nydus-image takes zstd here whenever sections have headers.
    const packer: Compressor = headers ? 'zstd' : compressor;
    const stored = compressed(packer, information);
    const entriesLength = this.count * CHUNK_INFO_LENGTH[batches ? 2 : 1];
    const header: MetaHeader = {
      features,
      compressor: stored === undefined ? 'none' : packer,
      entries: this.count,
      offset: writer.offset,
      compressedSize: (stored ?? information).length,
      uncompressedSize: information.length,
      contextOffset: batches ? entriesLength : 0,
      contextSize: information.length - entriesLength,
      contextCount: this.#batches.length,
    };
    const headerBytes = encodeMetaHeader(header);
    writer.chunkInformation(information, stored, packer, headerBytes);
    if (toc) writer.section(SECTIONS.digests, Buffer.concat(this.#digests), undefined, 'none');
    const blob: BlobInfo = {
      id: PLACEHOLDER_ID,
      chunkSize,
      chunkCount: this.count,
      compressor,
      digester,
      features,
      compressedSize: 0,
      uncompressedSize: this.#decoded,
      chunkInfo: {
        compressor: header.compressor,
        offset: header.offset,
        compressedSize: header.compressedSize,
        uncompressedSize: header.uncompressedSize,
      },
      tocSize: 0,
      tocDigest: NO_DIGEST,
      metaDigest: NO_DIGEST,
      metaSize: 0,
    };
    return { blob, meta: { information, header: headerBytes } };
  }

  #place(
    blobIndex: number,
    digest: Uint8Array,
    size: number,
    place: {
      readonly storedSize: number;
      readonly flags: number;
      readonly context: number;
      readonly contextOffset: number;
    },
  ): Omit<Chunk, 'compressed' | 'batched'> {
    const index = this.count;
    const uncompressedOffset = this.#decoded;
    const end = alignUp(uncompressedOffset + size, ALIGNMENT);
    if (index >= MAX_CHUNKS || end > MAX_DECODED_LENGTH || this.#stored + size > MAX_STORED_LENGTH) {
      throw new PantalaError(
        'out-of-range',
        `a blob has room for ${MAX_CHUNKS} chunks and ${MAX_STORED_LENGTH} bytes; choose larger chunks than ${this.#options.chunkSize}`,
      );
    }
    const columns = this.#columns;
    columns.compressedOffset.push(this.#stored);
    columns.compressedSize.push(place.storedSize);
    columns.uncompressedOffset.push(uncompressedOffset);
    columns.uncompressedSize.push(size);
    columns.flags.push(place.flags);
    columns.context.push(place.context);
    columns.contextOffset.push(place.contextOffset);
    this.#digests.push(digest);
    this.#decoded = end;
    return {
      digest,
      blobIndex,
      index,
      compressedOffset: this.#stored,
      compressedSize: place.storedSize,
      uncompressedOffset,
      uncompressedSize: size,
      crc32c: undefined,
    };
  }

  #information(): ChunkInformation {
    const columns = this.#columns;
    return {
      count: this.count,
      compressedOffset: Float64Array.from(columns.compressedOffset),
      compressedSize: Uint32Array.from(columns.compressedSize),
      uncompressedOffset: Float64Array.from(columns.uncompressedOffset),
      uncompressedSize: Uint32Array.from(columns.uncompressedSize),
      flags: Uint8Array.from(columns.flags),
      context: Uint32Array.from(columns.context),
      contextOffset: Uint32Array.from(columns.contextOffset),
      batches: this.#batches,
      restartPoints: [],
    };
  }
}

/** Sections behind each other, each with its header, and the table of contents of them. */
class SectionWriter {
  readonly parts: Uint8Array[] = [];
  /** In the blob, bytes. */
  offset: number;
  readonly #headers: boolean;
  readonly #entries: TocEntry[] = [];

  constructor(offset: number, headers: boolean) {
    this.offset = offset;
    this.#headers = headers;
  }

  /** The data, which is written already. */
  data(storedSize: number, decodedSize: number, digest: Uint8Array): void {
    const name = SECTIONS.data;
    this.#entries.push({
      name,
      compressor: 'none',
      digest,
      offset: 0,
      compressedSize: storedSize,
      uncompressedSize: decodedSize,
    });
    this.#header(name, storedSize);
  }

  chunkInformation(
    information: Uint8Array,
    stored: Uint8Array | undefined,
    compressor: Compressor,
    header: Uint8Array,
  ): void {
    const start = this.offset;
    this.#entry(SECTIONS.chunkInformation, information, stored, compressor);
    this.#entry(SECTIONS.metaHeader, header, undefined, 'none');
    this.#header(SECTIONS.chunkInformation, this.offset - start);
  }

  /** @param stored the compressed bytes; undefined when they are written as they are */
  section(name: string, bytes: Uint8Array, stored: Uint8Array | undefined, compressor: Compressor): void {
    const start = this.offset;
    this.#entry(name, bytes, stored, compressor);
    this.#header(name, this.offset - start);
  }

  /** Ends the blob with the table of contents, whose bytes with the header it returns. */
  toc(): Uint8Array {
    const entries = encodeToc(this.#entries);
    const toc = Buffer.concat([entries, encodeSectionHeader({ name: SECTIONS.toc, size: entries.length })]);
    this.#push(toc);
    return toc;
  }

  #entry(name: string, bytes: Uint8Array, stored: Uint8Array | undefined, compressor: Compressor): void {
    this.#entries.push({
      name,
      compressor: stored === undefined ? 'none' : compressor,
      digest: sha256(bytes),
      offset: this.offset,
      compressedSize: (stored ?? bytes).length,
      uncompressedSize: bytes.length,
    });
    this.#push(stored ?? bytes);
  }

  #header(name: string, size: number): void {
    if (this.#headers) this.#push(encodeSectionHeader({ name, size }));
  }

  #push(part: Uint8Array): void {
    this.parts.push(part);
    this.offset += part.length;
  }
}
