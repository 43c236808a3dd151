import { PantalaError, throwIfAborted } from '@pantala/base';
import { type Chunk, type DecodedChunk, type DecodeUnit, decodeUnit, type RegularFile } from '@pantala/rafs';
import type { ImageBlob, ImageBlobs } from './image-blobs.ts';

/** Decoded bytes that are kept: neighbours of a batch or of a restart point are mostly wanted next. */
const KEPT_BYTES = 64 * 1024 * 1024;

/** Reads files of an image out of its blobs, chunk by chunk, each checked against its digest. */
export class FileContent {
  readonly #blobs: ImageBlobs;
  readonly #signal: AbortSignal | undefined;
  readonly #kept = new Map<string, readonly DecodedChunk[]>();
  #keptBytes = 0;

  constructor(blobs: ImageBlobs, signal?: AbortSignal) {
    this.#blobs = blobs;
    this.#signal = signal;
  }

  /**
   * The file's bytes in order.
   *
   * @throws `data-loss` when a chunk is damaged or the chunks are not as long as the file; `not-found` without a blob
   */
  async *read(file: RegularFile): AsyncGenerator<Uint8Array> {
    let length = 0;
    for (const chunk of file.content) {
      throwIfAborted(this.#signal);
      length += chunk.uncompressedSize;
      yield await this.chunk(chunk);
    }
    if (length !== file.size) {
      throw new PantalaError('data-loss', `a file of ${file.size} bytes has chunks of ${length} bytes`);
    }
  }

  /** The content of one chunk. */
  async chunk(chunk: Chunk): Promise<Uint8Array> {
    const blob = await this.#blobs.blob(chunk.blobIndex);
    const unit = unitOf(blob, chunk);
    if (unit.chunks.length === 1) return found(decodeUnit(unit, await blob.stored.read(unit.range)), chunk);
    const key = `${chunk.blobIndex}:${unit.range.start}:${unit.chunks[0]?.position}`;
    let decoded = this.#kept.get(key);
    if (decoded === undefined) {
      decoded = [...decodeUnit(unit, await blob.stored.read(unit.range))];
      this.#keep(key, decoded, unit.size);
    }
    return found(decoded, chunk);
  }

  #keep(key: string, decoded: readonly DecodedChunk[], bytes: number): void {
    if (this.#keptBytes + bytes > KEPT_BYTES) {
      this.#kept.clear();
      this.#keptBytes = 0;
    }
    this.#kept.set(key, decoded);
    this.#keptBytes += bytes;
  }
}

/** What has to be decoded for one chunk. */
function unitOf({ map }: ImageBlob, chunk: Chunk): DecodeUnit {
  const range = { start: chunk.uncompressedOffset, end: chunk.uncompressedOffset + chunk.uncompressedSize };
  const unit = map.fetchGroups(range, { maxLength: 0, maxGap: 0 })[0]?.units[0];
  if (unit === undefined) throw new PantalaError('internal', `the image's own chunk at ${range.start} is in no blob`);
  return unit;
}

function found(decoded: Iterable<DecodedChunk>, chunk: Chunk): Uint8Array {
  for (const { offset, content } of decoded) if (offset === chunk.uncompressedOffset) return content;
  throw new PantalaError('internal', `the chunk at ${chunk.uncompressedOffset} was not decoded`);
}
