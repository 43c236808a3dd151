import { BLOB_FEATURES, type BlobInfo } from '../image.ts';
import {
  BLOB_ENTRY_LENGTH,
  BLOB_ID_LENGTH,
  COMPRESSORS,
  DEVICE_SLOT_LENGTH,
  DEVICE_TABLE_OFFSET,
  DIGESTERS,
  INCOMPATIBLE_FEATURES,
  INTERNAL_FEATURE,
  KNOWN_INCOMPATIBLE_FEATURES,
} from './format.ts';
import { MAX_CHUNKS_PER_BLOB, MAX_COMPRESSED_BLOB, MAX_UNCOMPRESSED_BLOB } from './limits.ts';
import { type BootstrapReader, refuse } from './reader.ts';
import { EXTENSION, SUPERBLOCK, type Superblock } from './superblock.ts';

/** Fields of an entry of the blob table by their names in RAFS, with their offset in it. */
export const BLOB_FIELDS = {
  blob_id: 0,
  blob_index: 64,
  chunk_size: 68,
  chunk_count: 72,
  compression_algo: 76,
  digest_algo: 80,
  features: 84,
  compressed_size: 88,
  uncompressed_size: 96,
  blob_toc_size: 104,
  ci_compressor: 108,
  ci_offset: 112,
  ci_compressed_size: 120,
  ci_uncompressed_size: 128,
  blob_toc_digest: 136,
  blob_meta_digest: 168,
  blob_meta_size: 200,
  cipher_algo: 216,
} as const;

const DEVICE_FIELDS = { tag: 0, blocks: 64, mapped_blkaddr: 68 } as const;

export type BlobField = keyof typeof BLOB_FIELDS;

/** A digest in hex, or the sixty-four `x` of a blob that holds this very bootstrap and has no digest yet. */
const BLOB_ID = /^(?:[0-9a-f]{64}|x{64})$/;

/** Header of the chunk information, which lies behind it in the stored blob. */
const CHUNK_INFO_HEADER_LENGTH = 4096;
const CHUNK_INFO_V1_LENGTH = 16;
const CHUNK_INFO_V2_LENGTH = 24;

export function readBlobs(reader: BootstrapReader, superblock: Superblock): BlobInfo[] {
  const blobs: BlobInfo[] = [];
  const ids = new Set<string>();
  let blocks = 0;
  for (let index = 0; index < superblock.devices; index++) {
    const offset = superblock.blobTable.offset + index * BLOB_ENTRY_LENGTH;
    const blob = readBlob(reader, offset, index);
    const fault = blobFault(blob, superblock);
    if (fault !== undefined) refuse(fault.field, offset + BLOB_FIELDS[fault.field], fault.fact);
    if (ids.has(blob.id)) refuse('blob_id', offset, `is ${blob.id}, which an earlier blob has too`);
    ids.add(blob.id);
    blobs.push(blob);
    checkDevice(reader, DEVICE_TABLE_OFFSET + index * DEVICE_SLOT_LENGTH, blob, superblock);
    blocks += blocksOf(blob, superblock.blockSize);
  }
  checkMappings(reader, superblock, blobs);
  // Builders before 2.1 wrote 4096 where there is no blob.
  if (superblock.blocks !== blocks % 2 ** 32 && !(blobs.length === 0 && superblock.blocks === 4096)) {
    refuse('blocks', SUPERBLOCK.blocks, `is ${superblock.blocks}, but the blobs have ${blocks} blocks in all`);
  }
  if (superblock.inlinedDigests && !blobs.every((blob) => (blob.features & BLOB_FEATURES.inlinedDigests) !== 0)) {
    refuse('s_flags', EXTENSION.flags, 'says that all blobs hold their digests, but a blob has not that feature');
  }
  return blobs;
}

function readBlob(reader: BootstrapReader, offset: number, index: number): BlobInfo {
  const at = (field: BlobField): number => offset + BLOB_FIELDS[field];
  const algorithm = <Name>(names: readonly Name[], field: BlobField): Name => {
    const number = reader.u32(at(field));
    return names[number] ?? refuse(field, at(field), `is ${number}, which is no algorithm of RAFS`);
  };
  const position = reader.u32(at('blob_index'));
  if (position !== index) refuse('blob_index', at('blob_index'), `is ${position} at position ${index}`);
  const cipher = reader.u32(at('cipher_algo'));
  if (cipher !== 0) refuse('cipher_algo', at('cipher_algo'), `is ${cipher}: encrypted blobs are not read`);
  return {
    id: reader.string(at('blob_id'), at('blob_id') + BLOB_ID_LENGTH),
    chunkSize: reader.u32(at('chunk_size')),
    chunkCount: reader.u32(at('chunk_count')),
    compressor: algorithm(COMPRESSORS, 'compression_algo'),
    digester: algorithm(DIGESTERS, 'digest_algo'),
    features: reader.u32(at('features')),
    compressedSize: reader.u64(at('compressed_size')),
    uncompressedSize: reader.u64(at('uncompressed_size')),
    chunkInfo: {
      compressor: algorithm(COMPRESSORS, 'ci_compressor'),
      offset: reader.u64(at('ci_offset')),
      compressedSize: reader.u64(at('ci_compressed_size')),
      uncompressedSize: reader.u64(at('ci_uncompressed_size')),
    },
    tocSize: reader.u32(at('blob_toc_size')),
    tocDigest: reader.copyOf(at('blob_toc_digest'), 32),
    metaDigest: reader.copyOf(at('blob_meta_digest'), 32),
    metaSize: reader.u64(at('blob_meta_size')),
  };
}

/** Blocks of a blob's device. */
export function blocksOf(blob: BlobInfo, blockSize: number): number {
  return Math.floor(blob.uncompressedSize / blockSize);
}

export interface BlobFault {
  readonly field: BlobField;
  readonly fact: string;
}

/** What is wrong with a description of a blob, for reader and writer alike. */
export function blobFault(
  blob: BlobInfo,
  image: { readonly chunkSize: number; readonly blockSize: number },
): BlobFault | undefined {
  const has = (feature: number): boolean => (blob.features & feature) !== 0;
  const tarfs = image.blockSize === 512;
  if (!BLOB_ID.test(blob.id)) {
    return { field: 'blob_id', fact: 'is neither 64 hex digits in lower case nor the placeholder of 64 x' };
  }
  if (blob.chunkSize !== image.chunkSize) {
    return { field: 'chunk_size', fact: `is ${blob.chunkSize}, but the image's is ${image.chunkSize}` };
  }
  if (blob.chunkCount > MAX_CHUNKS_PER_BLOB) {
    return { field: 'chunk_count', fact: `is ${blob.chunkCount}, more than ${MAX_CHUNKS_PER_BLOB}` };
  }
  if ((blob.features & INCOMPATIBLE_FEATURES & ~KNOWN_INCOMPATIBLE_FEATURES) !== 0 || has(INTERNAL_FEATURE)) {
    return { field: 'features', fact: `is 0x${blob.features.toString(16)}, with bits that must be known and are not` };
  }
  if (has(BLOB_FEATURES.encrypted)) return { field: 'features', fact: 'says encrypted, which is not read' };
  if (has(BLOB_FEATURES.aligned) === tarfs) {
    const rule = tarfs ? 'may not have the bit of aligned chunks: it is a tar' : 'lacks the bit of aligned chunks';
    return { field: 'features', fact: `is 0x${blob.features.toString(16)} and ${rule}` };
  }
  if (has(BLOB_FEATURES.tarfs) && !tarfs) {
    return { field: 'features', fact: `is 0x${blob.features.toString(16)}, of a tar: that needs blocks of 512 bytes` };
  }
  if (!has(BLOB_FEATURES.chunkInfoV2) && has(BLOB_FEATURES.zran | BLOB_FEATURES.batch)) {
    return { field: 'features', fact: `is 0x${blob.features.toString(16)}: ZRan and batches need version 2` };
  }
  for (const [field, bytes] of [
    ['compressed_size', blob.compressedSize],
    ['ci_offset', blob.chunkInfo.offset],
    ['ci_compressed_size', blob.chunkInfo.compressedSize],
    ['ci_uncompressed_size', blob.chunkInfo.uncompressedSize],
    ['blob_meta_size', blob.metaSize],
  ] as const) {
    if (!(bytes >= 0 && bytes <= MAX_COMPRESSED_BLOB))
      return { field, fact: `is ${bytes}, more than ${MAX_COMPRESSED_BLOB}` };
  }
  const { uncompressedSize } = blob;
  // A tar may end in an odd place, its files do not.
  const blocks = tarfs ? Math.floor(uncompressedSize / image.blockSize) : uncompressedSize / image.blockSize;
  if (uncompressedSize > MAX_UNCOMPRESSED_BLOB || blocks >= 2 ** 32) {
    return { field: 'uncompressed_size', fact: `is ${uncompressedSize}, more than a device can have` };
  }
  if (blocks === 0 || !Number.isInteger(blocks)) {
    return { field: 'uncompressed_size', fact: `is ${uncompressedSize}, no positive multiple of ${image.blockSize}` };
  }
  if (blob.tocSize > blob.compressedSize) {
    return { field: 'blob_toc_size', fact: `is ${blob.tocSize}, more than the blob has` };
  }
  return tarfs ? undefined : chunkInfoFault(blob);
}

function chunkInfoFault(blob: BlobInfo): BlobFault | undefined {
  const has = (feature: number): boolean => (blob.features & feature) !== 0;
  const { offset, compressedSize, uncompressedSize } = blob.chunkInfo;
  const least = blob.chunkCount * (has(BLOB_FEATURES.chunkInfoV2) ? CHUNK_INFO_V2_LENGTH : CHUNK_INFO_V1_LENGTH);
  // Contexts of ZRan and of batches follow the entries; dictionaries without data have no entries.
  const more = has(BLOB_FEATURES.zran | BLOB_FEATURES.batch);
  const exempt = has(BLOB_FEATURES.chunkDict) && !has(BLOB_FEATURES.chunkInfoV2);
  if (!exempt && (uncompressedSize < least || (uncompressedSize !== least && !more))) {
    return {
      field: 'ci_uncompressed_size',
      fact: `is ${uncompressedSize}, but ${blob.chunkCount} chunks need ${least}`,
    };
  }
  if (compressedSize > uncompressedSize) {
    return { field: 'ci_compressed_size', fact: `is ${compressedSize}, more than it is uncompressed` };
  }
  if (has(BLOB_FEATURES.separate) && blob.metaSize === 0) return undefined;
  const holder = has(BLOB_FEATURES.separate) ? blob.metaSize : blob.compressedSize;
  if (!exempt && offset + compressedSize + CHUNK_INFO_HEADER_LENGTH > holder) {
    return { field: 'ci_offset', fact: `is ${offset}: the chunk information would end behind the blob's end` };
  }
  return undefined;
}

function checkDevice(reader: BootstrapReader, offset: number, blob: BlobInfo, superblock: Superblock): void {
  const id = reader.string(offset + DEVICE_FIELDS.tag, offset + DEVICE_FIELDS.tag + BLOB_ID_LENGTH);
  if (id !== blob.id) refuse('tag', offset + DEVICE_FIELDS.tag, `is not the id of the blob, ${blob.id}`);
  const blocks = reader.u32(offset + DEVICE_FIELDS.blocks);
  const expected = blocksOf(blob, superblock.blockSize);
  if (blocks !== expected) {
    refuse('blocks', offset + DEVICE_FIELDS.blocks, `is ${blocks}, but the decoded blob has ${expected} blocks`);
  }
}

/** Where a kernel would see the blobs behind the bootstrap in one device: apart from each other, or nowhere (0). */
function checkMappings(reader: BootstrapReader, superblock: Superblock, blobs: readonly BlobInfo[]): void {
  const ranges = blobs.map((blob, index) => {
    const offset = DEVICE_TABLE_OFFSET + index * DEVICE_SLOT_LENGTH + DEVICE_FIELDS.mapped_blkaddr;
    const begin = reader.u32(offset);
    return { offset, begin, end: begin + blocksOf(blob, superblock.blockSize) };
  });
  let end = reader.length / superblock.blockSize;
  for (const range of ranges.filter((each) => each.begin !== 0).sort((a, b) => a.begin - b.begin)) {
    if (range.begin < end) {
      refuse('mapped_blkaddr', range.offset, `is ${range.begin}, inside the bootstrap or another blob`);
    }
    if (range.end > 2 ** 32) refuse('mapped_blkaddr', range.offset, `is ${range.begin}: the blob ends behind 2^32`);
    end = range.end;
  }
}

export function writeBlob(bytes: Buffer, offset: number, blob: BlobInfo, index: number): void {
  const u32 = (field: BlobField, value: number): unknown => bytes.writeUInt32LE(value, offset + BLOB_FIELDS[field]);
  const u64 = (field: BlobField, value: number): unknown =>
    bytes.writeBigUInt64LE(BigInt(value), offset + BLOB_FIELDS[field]);
  bytes.write(blob.id, offset + BLOB_FIELDS.blob_id, 'latin1');
  u32('blob_index', index);
  u32('chunk_size', blob.chunkSize);
  u32('chunk_count', blob.chunkCount);
  u32('compression_algo', COMPRESSORS.indexOf(blob.compressor));
  u32('digest_algo', DIGESTERS.indexOf(blob.digester));
  u32('features', blob.features);
  u64('compressed_size', blob.compressedSize);
  u64('uncompressed_size', blob.uncompressedSize);
  u32('blob_toc_size', blob.tocSize);
  u32('ci_compressor', COMPRESSORS.indexOf(blob.chunkInfo.compressor));
  u64('ci_offset', blob.chunkInfo.offset);
  u64('ci_compressed_size', blob.chunkInfo.compressedSize);
  u64('ci_uncompressed_size', blob.chunkInfo.uncompressedSize);
  bytes.set(blob.tocDigest, offset + BLOB_FIELDS.blob_toc_digest);
  bytes.set(blob.metaDigest, offset + BLOB_FIELDS.blob_meta_digest);
  u64('blob_meta_size', blob.metaSize);
}

/** `mapped` is where the blob begins in one device for all, in blocks. */
export function writeDevice(bytes: Buffer, offset: number, blob: BlobInfo, blockSize: number, mapped: number): void {
  bytes.write(blob.id, offset + DEVICE_FIELDS.tag, 'latin1');
  bytes.writeUInt32LE(blocksOf(blob, blockSize), offset + DEVICE_FIELDS.blocks);
  bytes.writeUInt32LE(mapped, offset + DEVICE_FIELDS.mapped_blkaddr);
}
