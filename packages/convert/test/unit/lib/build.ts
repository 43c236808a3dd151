import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { join } from 'node:path';
import { decompressed, type TarEntry, walkTar } from '@pantala/oci';
import {
  ChunkMap,
  chunksByBlob,
  decodeGroup,
  needsChunkInformation,
  type RafsImage,
  type RegularFile,
  readChunkInformation,
  walk,
} from '@pantala/rafs';
import type { BlobReceiver } from '../../../src/index.ts';

export const FIXTURES = join(import.meta.dirname, '../../../../rafs/test/fixtures/nydus-tools');

/** Keeps what is written; the memory that it came in is used again. */
export class MemorySink implements BlobReceiver {
  readonly #parts: Buffer[] = [];
  calls = 0;

  async write(parts: readonly Uint8Array[]): Promise<void> {
    this.calls += 1;
    this.#parts.push(...parts.map((part) => Buffer.from(part)));
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#parts);
  }
}

export function tarFixture(name: string): AsyncGenerator<TarEntry, void, undefined> {
  return walkTar(decompressed(createReadStream(join(FIXTURES, 'src', name))));
}

/** Content of every chunk, each checked, by its offset in the decoded blob; by blob. */
export async function contentsOf(
  image: RafsImage,
  blobs: ReadonlyMap<string, Uint8Array>,
): Promise<Map<number, Buffer>[]> {
  return await Promise.all(
    chunksByBlob(image).map(async (chunks, index) => {
      const blob = image.blobs[index];
      const bytes = blob && blobs.get(blob.id);
      if (blob === undefined || bytes === undefined) throw new Error(`there is no blob ${blob?.id}`);
      const stored = {
        name: blob.id,
        size: bytes.length,
        read: async ({ start, end }: { start: number; end: number }) => bytes.subarray(start, end),
      };
      const information = needsChunkInformation(blob) ? await readChunkInformation(stored, blob) : undefined;
      const map = new ChunkMap(blob, chunks, information);
      const contents = new Map<number, Buffer>();
      const whole = { start: 0, end: blob.uncompressedSize };
      for (const group of map.fetchGroups(whole, { maxLength: Number.MAX_SAFE_INTEGER, maxGap: 0 })) {
        for (const chunk of decodeGroup(group, bytes.subarray(group.range.start, group.range.end))) {
          contents.set(chunk.offset, Buffer.from(chunk.content));
        }
      }
      return contents;
    }),
  );
}

/** SHA-256 of every regular file by path. */
export async function fileDigests(
  image: RafsImage,
  blobs: ReadonlyMap<string, Uint8Array>,
): Promise<Map<string, string>> {
  const contents = await contentsOf(image, blobs);
  const digests = new Map<string, string>();
  for (const { path, node } of walk(image.root)) {
    if (node.kind === 'regular') digests.set(path, digestOf(node, contents));
  }
  return digests;
}

function digestOf(file: RegularFile, contents: readonly Map<number, Buffer>[]): string {
  const hash = createHash('sha256');
  let size = 0;
  for (const chunk of file.content) {
    const content = contents[chunk.blobIndex]?.get(chunk.uncompressedOffset);
    if (content === undefined) throw new Error('a chunk has no content');
    hash.update(content);
    size += content.length;
  }
  if (size !== file.size) throw new Error(`chunks have ${size} bytes, the file ${file.size}`);
  return hash.digest('hex');
}
