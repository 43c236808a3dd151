import type { ByteRange, ByteString } from '@pantala/base';
import { type FileChunks, type RafsImage, walk } from '@pantala/rafs';

/** A regular file of an image. Of several names it has the first. */
export interface IndexedFile {
  /** From 1 on, in the order of the tree. */
  readonly number: number;
  readonly path: ByteString;
}

interface BlobColumns {
  /** Where chunks begin in the decoded blob, in order. */
  readonly starts: Float64Array;
  readonly ends: Float64Array;
  /** Of the file that the chunk belongs to; the first one, where several share it. */
  readonly files: Uint32Array;
}

/** Says which files of an image lie in a range of one of its blobs. */
export class FileIndex {
  readonly #files: IndexedFile[] = [];
  readonly #blobs = new Map<string, BlobColumns>();

  constructor(image: RafsImage) {
    const rows = image.blobs.map(() => new Map<number, { end: number; file: number }>());
    const seen = new Set<FileChunks>();
    for (const { path, node } of walk(image.root)) {
      if (node.kind !== 'regular' || seen.has(node.content)) continue;
      seen.add(node.content);
      const number = this.#files.push({ number: this.#files.length + 1, path });
      for (const { blobIndex, uncompressedOffset: start, uncompressedSize } of node.content) {
        const row = rows[blobIndex];
        if (row !== undefined && !row.has(start)) row.set(start, { end: start + uncompressedSize, file: number });
      }
    }
    for (const [index, row] of rows.entries()) {
      const ordered = [...row].toSorted(([a], [b]) => a - b);
      this.#blobs.set(image.blobs[index]?.id ?? '', {
        starts: Float64Array.from(ordered, ([start]) => start),
        ends: Float64Array.from(ordered, ([, { end }]) => end),
        files: Uint32Array.from(ordered, ([, { file }]) => file),
      });
    }
  }

  /** Regular files. */
  get count(): number {
    return this.#files.length;
  }

  file(number: number): IndexedFile | undefined {
    return this.#files[number - 1];
  }

  /** Numbers of the files with bytes in the range, in the order of the blob, each once. */
  filesIn(blobId: string, range: ByteRange): number[] {
    const blob = this.#blobs.get(blobId);
    if (blob === undefined) return [];
    let low = 0;
    let high = blob.starts.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((blob.ends[middle] as number) <= range.start) low = middle + 1;
      else high = middle;
    }
    const found = new Set<number>();
    for (let at = low; at < blob.starts.length && (blob.starts[at] as number) < range.end; at++) {
      found.add(blob.files[at] as number);
    }
    return [...found];
  }
}
