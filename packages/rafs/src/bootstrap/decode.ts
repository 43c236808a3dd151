import type { ChunkColumns } from '../blob/chunk-columns.ts';
import type { RafsImage } from '../image.ts';
import type { Node } from '../tree/node.ts';
import { readBlobs } from './blob-table.ts';
import type { Tables } from './file-reader.ts';
import { PREFETCH_ENTRY_LENGTH } from './format.ts';
import { ListedChunks, TarChunks } from './image-chunks.ts';
import { Nodes } from './nodes.ts';
import { BootstrapReader, refuse } from './reader.ts';
import { readSuperblock, type Superblock } from './superblock.ts';
import { TreeWalk } from './tree-walk.ts';

/** A bootstrap that was checked from end to end. */
export interface Bootstrap {
  /** Its files become objects when they are first looked at. */
  readonly image: RafsImage;
  /** The distinct chunks of a blob that files have. */
  readonly chunksOf: (blobIndex: number) => ChunkColumns;
}

/**
 * Reads a RAFS v6 bootstrap (EROFS on-disk format with the extensions of Nydus). Its files look into `bytes`, which must
 * not change afterwards; blobs and the chunks by blob do not.
 *
 * Work and memory are bounded by the length of `bytes`. Whatever the kernel and nydusd would read differently, and
 * whatever leads nowhere, is refused.
 *
 * @throws `data-loss` with the field and its offset (see `malformed`)
 */
export function readBootstrap(bytes: Uint8Array): Bootstrap {
  const reader = new BootstrapReader(bytes);
  const superblock = readSuperblock(reader);
  const blobs = readBlobs(reader, superblock);
  const listed = new ListedChunks(reader, superblock, blobs);
  // Of tars' chunks, whose digests nobody knows, the real builder's table has one for each blob.
  const chunks = superblock.blockSize === 512 ? new TarChunks(blobs) : listed;
  const tables: Tables = { superblock, blobs, chunks };
  const walk = new TreeWalk(reader, tables);
  walk.check();
  const prefetched = readPrefetch(reader, superblock, walk);
  const nodes = new Nodes(new BootstrapReader(bytes), tables);
  const image: RafsImage = {
    root: nodes.directory(superblock.rootNid),
    blobs,
    chunkSize: superblock.chunkSize,
    compressor: superblock.compressor,
    digester: superblock.digester,
    explicitIds: superblock.explicitIds,
    blockSize: superblock.blockSize,
    get prefetch() {
      const value: readonly Node[] = prefetched.map((nid) => nodes.node(nid));
      Object.defineProperty(this, 'prefetch', { value, enumerable: true });
      return value;
    },
  };
  return { image, chunksOf: (blobIndex) => chunks.used(blobIndex) };
}

/** What `readBootstrap` reads, without the chunks by blob. */
export function decodeBootstrap(bytes: Uint8Array): RafsImage {
  return readBootstrap(bytes).image;
}

/** @returns nids of files of the tree */
function readPrefetch(reader: BootstrapReader, superblock: Superblock, tree: TreeWalk): number[] {
  const prefetched: number[] = [];
  const { offset, entries } = superblock.prefetchTable;
  for (let entry = 0; entry < entries; entry++) {
    const at = offset + entry * PREFETCH_ENTRY_LENGTH;
    const nid = reader.u32(at);
    if (nid === 0) break;
    if (!tree.has(nid)) refuse('prefetch_nid', at, `is ${nid}, which is no file of the tree`);
    prefetched.push(nid);
  }
  return prefetched;
}
