import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  BLOB_FEATURES,
  type BlobInfo,
  type Chunk,
  ChunkMap,
  decodeChunkInformation,
  decodeGroup,
  decodeMetaHeader,
  META_HEADER_LENGTH,
  needsChunkInformation,
  readBlobSections,
  readChunkInformation,
  readOwnChunkInformation,
  readSection,
  sha256,
} from '../../src/index.ts';
import { fixture, storedBlob, tablesOf } from './lib/fixtures.ts';

const WHOLE = { maxLength: Number.MAX_SAFE_INTEGER, maxGap: 0 };

/** The decoded blob, each chunk checked, with zeros between them. */
async function decoded(blob: BlobInfo, chunks: readonly Chunk[], data: Uint8Array, meta = data): Promise<Buffer> {
  const information = needsChunkInformation(blob) ? await readChunkInformation(storedBlob(meta), blob) : undefined;
  const map = new ChunkMap(blob, chunks, information);
  const output = Buffer.alloc(blob.uncompressedSize);
  let count = 0;
  for (const group of map.fetchGroups({ start: 0, end: blob.uncompressedSize }, WHOLE)) {
    for (const chunk of decodeGroup(group, data.subarray(group.range.start, group.range.end))) {
      output.set(chunk.content, chunk.offset);
      count += 1;
    }
  }
  expect(count).toBe(map.count);
  return output;
}

const FOLDERS = [
  'm-none',
  'm-lz4_block',
  'm-zstd',
  'm-sha256',
  'm-cs0x10000-lz4',
  'm-batch-zstd',
  'm-prefetch-fs',
  't-tar-rafs',
  'vhead-y-zstd',
  'l-tar-1',
  'l-tar-2',
  'l-tar-3',
];

describe('images of nydus-image', () => {
  test.each(FOLDERS)('%s: every chunk has its digest', async (folder) => {
    const { blobs, chunks } = tablesOf(fixture('nydus-tools', folder, 'bootstrap'));
    const blob = blobs[0] as BlobInfo;
    const data = fixture('nydus-tools', folder, 'blobs', blob.id);
    expect(chunks).toHaveLength(blob.chunkCount);
    await decoded(blob, chunks, data);
  });

  test('all builds of one tree decode to the same blob', async () => {
    const blobs = await Promise.all(
      ['m-none', 'm-lz4_block', 'm-zstd', 'm-sha256', 'm-batch-zstd'].map(async (folder) => {
        const tables = tablesOf(fixture('nydus-tools', folder, 'bootstrap'));
        const blob = tables.blobs[0] as BlobInfo;
        return sha256(await decoded(blob, tables.chunks, fixture('nydus-tools', folder, 'blobs', blob.id))).toString(
          'hex',
        );
      }),
    );
    expect(new Set(blobs).size).toBe(1);
  });

  test('the chunk information says what the chunk table says', async () => {
    for (const folder of FOLDERS) {
      const { blobs, chunks } = tablesOf(fixture('nydus-tools', folder, 'bootstrap'));
      const blob = blobs[0] as BlobInfo;
      const information = await readChunkInformation(
        storedBlob(fixture('nydus-tools', folder, 'blobs', blob.id)),
        blob,
      );
      for (const chunk of chunks) {
        expect(information.uncompressedOffset[chunk.index]).toBe(chunk.uncompressedOffset);
        expect(information.uncompressedSize[chunk.index]).toBe(chunk.uncompressedSize);
        if (needsChunkInformation(blob)) continue;
        expect(information.compressedOffset[chunk.index]).toBe(chunk.compressedOffset);
        expect(information.compressedSize[chunk.index]).toBe(chunk.compressedSize);
      }
    }
  });

  test('an unmodified gzip layer is read from its restart points', async () => {
    const { blobs, chunks } = tablesOf(fixture('nydus-tools', 't-targz-ref', 'bootstrap'));
    const blob = blobs[0] as BlobInfo;
    expect(blob.features & BLOB_FEATURES.zran).not.toBe(0);
    const metaId = Buffer.from(blob.metaDigest).toString('hex');
    const layer = fixture('nydus-tools', 't-targz-ref', 'blobs', blob.id);
    const meta = fixture('nydus-tools', 't-targz-ref', 'blobs', metaId);
    expect(sha256(layer).toString('hex')).toBe(blob.id);
    await decoded(blob, chunks, layer, meta);
  });

  test('a small range of a gzip layer fetches one restart point, and gives all chunks in it', async () => {
    const { blobs, chunks } = tablesOf(fixture('nydus-tools', 't-targz-ref', 'bootstrap'));
    const blob = blobs[0] as BlobInfo;
    const layer = fixture('nydus-tools', 't-targz-ref', 'blobs', blob.id);
    const meta = fixture('nydus-tools', 't-targz-ref', 'blobs', Buffer.from(blob.metaDigest).toString('hex'));
    const map = new ChunkMap(blob, chunks, await readChunkInformation(storedBlob(meta), blob));
    const last = map.rangeOf(map.count - 1);
    const groups = map.fetchGroups({ start: last.start, end: last.start + 1 }, WHOLE);
    expect(groups.map(({ range }) => range)).toEqual([{ start: 145420, end: 147597 }]);
    const found = groups.flatMap((group) => [
      ...decodeGroup(group, layer.subarray(group.range.start, group.range.end)),
    ]);
    expect(found.map(({ position }) => position)).toContain(map.count - 1);
  });
});

describe('a blob with a table of contents', () => {
  const ID = 'be7d77eeb719f70884758d1aa800ed0fb09d701aaec469964e9d54325f0d5fef';

  test('decodes to the two files that were packed', async () => {
    const { blobs, chunks } = tablesOf(fixture('nydus', 'rafs-v6', 'rafs-v6-2.2.boot'));
    const output = await decoded(blobs[0] as BlobInfo, chunks, fixture('nydus', 'rafs-v6', ID));
    const digests = chunks.map(({ uncompressedOffset: start, uncompressedSize: size }) => {
      return sha256(output.subarray(start, start + size)).toString('hex');
    });
    expect(digests.toSorted()).toEqual([
      '1810eba864521293bb0d6b55a3c82318d4d89f294ed761c456d9088a17de0c69',
      'e629ab260ff0dc02a24648a3e0dd8c13a5daf233d535c330e3201925f5eeff96',
    ]);
  });

  test('its sections are where the table says, and have its digests', async () => {
    const blob = storedBlob(fixture('nydus', 'rafs-v6', ID));
    const sections = await readBlobSections(blob);
    expect(sections.data.range).toEqual({ start: 0, end: 7802 });
    expect(sections.toc).toHaveLength(4);
    expect(sections.bootstrap).toBeUndefined();
    if (sections.digests === undefined) throw new Error('no digests');
    const digests = await readSection(blob, sections.digests, 'digests');
    const { chunks } = tablesOf(fixture('nydus', 'rafs-v6', 'rafs-v6-2.2.boot'));
    for (const chunk of chunks) {
      expect(Buffer.from(chunk.digest).equals(digests.subarray(32 * chunk.index, 32 * chunk.index + 32))).toBe(true);
    }
    expect((await readOwnChunkInformation(blob, sections))?.count).toBe(2);
  });

  test('a bootstrap that lies in it is read', async () => {
    const id = '2fa78cad554b75ac91a4a125ed148d0ddeb25efa4aaa8bd80e5dc292690a4dca';
    const blob = storedBlob(fixture('nydus', 'toc', id));
    const { bootstrap } = await readBlobSections(blob);
    if (bootstrap === undefined) throw new Error('no bootstrap');
    const bytes = Buffer.from(await readSection(blob, bootstrap, 'bootstrap'));
    expect(bytes.readUInt32LE(1024)).toBe(0xe0f5_e1e2);
    expect(bytes).toHaveLength(20480);
  });
});

test('chunk information of a gzip layer as nydusd keeps it', () => {
  const name = '233c72f2b6b698c07021c4da367cfe2dff4f049efbaa885ca0ff760ea297865a.blob.meta';
  const bytes = fixture('nydus', 'zran', name);
  const header = decodeMetaHeader(bytes.subarray(-META_HEADER_LENGTH), bytes.length - META_HEADER_LENGTH, name);
  const information = decodeChunkInformation(bytes.subarray(0, header.uncompressedSize), header, name);
  expect(information.count).toBe(163);
  expect(information.restartPoints).toHaveLength(21);
  expect(information.restartPoints.map(({ dictionary }) => dictionary.length)).toEqual([0, ...Array(20).fill(32768)]);
  expect(information.restartPoints.map(({ bits }) => bits)).toContain(7);
});

test('no blob is left out', () => {
  const root = join(import.meta.dirname, '../fixtures/nydus-tools');
  const folders = readdirSync(root, { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const read = [...FOLDERS, 't-targz-ref', 'l-merge-tar', 'malformed', 'src'];
  expect(folders.map(({ name }) => name).toSorted()).toEqual(read.toSorted());
});
