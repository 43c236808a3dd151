import { setImmediate } from 'node:timers/promises';
import { sleep } from '@pantala/base';
import {
  BLOB_FEATURES,
  type BlobInfo,
  ChunkMap,
  type Directory,
  encodeBootstrap,
  NO_XATTRS,
  type Node,
  readBootstrap,
} from '@pantala/rafs';

/** Files of the bootstrap that is read, and how often that is: from then on the engine has compiled all of it well. */
const FILES = 1024;
const READS = 20;
const FILES_OF_DIRECTORY = 64;

const ATTRIBUTES = { mode: 0o644, uid: 0, gid: 0, mtime: { seconds: 0, nanoseconds: 0 }, xattrs: NO_XATTRS };
const NO_DIGEST = new Uint8Array(32);
const CHUNK = { stored: 100, content: 1000, place: 4096 };
const CHUNK_SIZE = 1024 * 1024;

/** Milliseconds after a mount before it begins: whoever has mounted reads. */
const PAUSE = 400;

/**
 * Reads a made-up bootstrap again and again. Code that has never run takes several times as long: the first image that
 * somebody waits for would pay for it.
 *
 * @param rest resolves when nobody waits for anything; it is asked before each read, of a few milliseconds
 * @throws the reason of the signal
 */
export async function rehearseReading(
  rest: (signal: AbortSignal) => Promise<void>,
  signal: AbortSignal,
): Promise<void> {
  await sleep(PAUSE, signal);
  await rest(signal);
  const bytes = madeUpBootstrap();
  for (let read = 0; read < READS; read++) {
    await setImmediate();
    await rest(signal);
    const { image, chunksOf } = readBootstrap(bytes);
    for (const [index, blob] of image.blobs.entries()) new ChunkMap(blob, chunksOf(index));
  }
}

function madeUpBootstrap(): Uint8Array {
  const information = FILES * 16;
  const stored = FILES * CHUNK.stored;
  const blob: BlobInfo = {
    id: 'a'.repeat(64),
    chunkSize: CHUNK_SIZE,
    chunkCount: FILES,
    compressor: 'zstd',
    digester: 'blake3',
    features: BLOB_FEATURES.aligned,
    compressedSize: stored + information + 4096,
    uncompressedSize: FILES * CHUNK.place,
    chunkInfo: { compressor: 'none', offset: stored, compressedSize: information, uncompressedSize: information },
    tocSize: 0,
    tocDigest: NO_DIGEST,
    metaDigest: NO_DIGEST,
    metaSize: 0,
  };
  const root = newDirectory();
  for (let first = 0; first < FILES; first += FILES_OF_DIRECTORY) root.entries.set(`d${first}`, directoryFrom(first));
  return encodeBootstrap({
    root,
    blobs: [blob],
    chunkSize: CHUNK_SIZE,
    compressor: blob.compressor,
    digester: blob.digester,
    explicitIds: true,
    blockSize: 4096,
    prefetch: [],
  });
}

function newDirectory(): Directory {
  return { kind: 'directory', attributes: ATTRIBUTES, entries: new Map<string, Node>() };
}

function directoryFrom(first: number): Directory {
  const directory = newDirectory();
  for (let index = first; index < first + FILES_OF_DIRECTORY; index++) {
    const digest = new Uint8Array(32);
    // In an order that is not that of the files, as real ones are.
    new DataView(digest.buffer).setUint32(0, Math.imul(index, 0x9e37_79b1));
    const chunk = {
      digest,
      blobIndex: 0,
      index,
      compressedOffset: index * CHUNK.stored,
      compressedSize: CHUNK.stored,
      uncompressedOffset: index * CHUNK.place,
      uncompressedSize: CHUNK.content,
      compressed: true,
      batched: false,
      crc32c: undefined,
    };
    directory.entries.set(`file ${index}`, {
      kind: 'regular',
      attributes: ATTRIBUTES,
      size: CHUNK.content,
      content: [chunk],
    });
    if (index % 16 === 0) {
      directory.entries.set(`link ${index}`, { kind: 'symlink', attributes: ATTRIBUTES, target: `file ${index}` });
    }
  }
  return directory;
}
