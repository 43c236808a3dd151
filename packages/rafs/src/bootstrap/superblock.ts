import { BLOB_FEATURES, type Compressor, type Digester, type RafsImage } from '../image.ts';
import {
  BLOB_ENTRY_LENGTH,
  CHUNK_ENTRY_LENGTH,
  COMPAT_CHECKSUM,
  COMPAT_RAFS_V6,
  COMPRESSOR_FLAGS,
  DEVICE_SLOT_LENGTH,
  DEVICE_TABLE_OFFSET,
  DEVICE_TABLE_SLOT,
  DIGESTER_FLAGS,
  EROFS_MAGIC,
  EXTENSION_OFFSET,
  FLAGS,
  INCOMPAT_RAFS_V6,
  KNOWN_FLAGS,
  MAX_CHUNK_SIZE,
  MIN_CHUNK_SIZE,
  PAGE,
  PREFETCH_ENTRY_LENGTH,
  ROOT_NID,
  SUPERBLOCK_OFFSET,
} from './format.ts';
import { MAX_BLOBS, MAX_BOOTSTRAP_LENGTH, MAX_PREFETCH } from './limits.ts';
import { type BootstrapReader, refuse } from './reader.ts';

export interface Table {
  /** From the file's begin, bytes. */
  readonly offset: number;
  readonly entries: number;
}

/** The superblock of EROFS and its extension by RAFS. */
export interface Superblock {
  readonly blockSize: 4096 | 512;
  readonly rootNid: number;
  readonly inodes: number;
  /** What compact inodes have as mtime. */
  readonly buildTime: { readonly seconds: number; readonly nanoseconds: number };
  readonly blocks: number;
  /** Where nid 0 would be, bytes. */
  readonly metaOffset: number;
  readonly devices: number;
  readonly compressor: Compressor;
  readonly digester: Digester;
  readonly explicitIds: boolean;
  readonly hasXattrs: boolean;
  readonly inlinedDigests: boolean;
  readonly chunkSize: number;
  readonly blobTable: Table;
  readonly chunkTable: Table;
  readonly prefetchTable: Table;
}

/** Offsets of the fields, for this reader, for those who check a field against others later, and for the writer. */
export const SUPERBLOCK = {
  magic: SUPERBLOCK_OFFSET,
  checksum: SUPERBLOCK_OFFSET + 4,
  compat: SUPERBLOCK_OFFSET + 8,
  blockBits: SUPERBLOCK_OFFSET + 12,
  extensionSlots: SUPERBLOCK_OFFSET + 13,
  rootNid: SUPERBLOCK_OFFSET + 14,
  inodes: SUPERBLOCK_OFFSET + 16,
  epoch: SUPERBLOCK_OFFSET + 24,
  nanoseconds: SUPERBLOCK_OFFSET + 32,
  blocks: SUPERBLOCK_OFFSET + 36,
  metaBlock: SUPERBLOCK_OFFSET + 40,
  xattrBlock: SUPERBLOCK_OFFSET + 44,
  incompat: SUPERBLOCK_OFFSET + 80,
  algorithms: SUPERBLOCK_OFFSET + 84,
  devices: SUPERBLOCK_OFFSET + 86,
  deviceSlot: SUPERBLOCK_OFFSET + 88,
  directoryBlockBits: SUPERBLOCK_OFFSET + 90,
  xattrPrefixes: SUPERBLOCK_OFFSET + 91,
} as const;

export const EXTENSION = {
  flags: EXTENSION_OFFSET,
  blobTableOffset: EXTENSION_OFFSET + 8,
  blobTableLength: EXTENSION_OFFSET + 16,
  chunkSize: EXTENSION_OFFSET + 20,
  chunkTableOffset: EXTENSION_OFFSET + 24,
  chunkTableLength: EXTENSION_OFFSET + 32,
  prefetchTableOffset: EXTENSION_OFFSET + 40,
  prefetchTableLength: EXTENSION_OFFSET + 48,
} as const;

export function readSuperblock(reader: BootstrapReader): Superblock {
  const { length } = reader;
  if (length < PAGE) refuse('length', length, `is ${length}: a bootstrap has at least ${PAGE} bytes`);
  if (length > MAX_BOOTSTRAP_LENGTH) {
    refuse('length', length, `is ${length}: bootstraps of more than ${MAX_BOOTSTRAP_LENGTH} bytes are not read`);
  }
  const magic = reader.u32(SUPERBLOCK.magic);
  if (magic !== EROFS_MAGIC) {
    refuse('magic', SUPERBLOCK.magic, `is 0x${magic.toString(16)}: an EROFS image has 0x${EROFS_MAGIC.toString(16)}`);
  }
  const blockSize = readBlockSize(reader);
  if (length % blockSize !== 0) refuse('length', length, `is ${length}, not a multiple of ${blockSize}`);
  readFixedFields(reader);
  const metaOffset = reader.u32(SUPERBLOCK.metaBlock) * blockSize;
  if (metaOffset >= length) refuse('meta_blkaddr', SUPERBLOCK.metaBlock, `is beyond the end of the file`);
  const devices = reader.u16(SUPERBLOCK.devices);
  if (devices > MAX_BLOBS) refuse('extra_devices', SUPERBLOCK.devices, `is ${devices}, more than ${MAX_BLOBS}`);
  if (!reader.has(DEVICE_TABLE_OFFSET, devices * DEVICE_SLOT_LENGTH)) {
    refuse('extra_devices', SUPERBLOCK.devices, `is ${devices}, more than the file has room for`);
  }
  const nanoseconds = reader.u32(SUPERBLOCK.nanoseconds);
  if (nanoseconds >= 1e9) refuse('fixed_nsec', SUPERBLOCK.nanoseconds, `is ${nanoseconds}, a second or more`);
  const seconds = reader.i64(SUPERBLOCK.epoch);
  if (!Number.isSafeInteger(seconds)) refuse('epoch', SUPERBLOCK.epoch, `is ${seconds}, too far from 1970`);
  return {
    blockSize,
    rootNid: reader.u16(SUPERBLOCK.rootNid),
    inodes: reader.u64(SUPERBLOCK.inodes),
    buildTime: { seconds, nanoseconds },
    blocks: reader.u32(SUPERBLOCK.blocks),
    metaOffset,
    devices,
    ...readFlags(reader, blockSize),
    ...readTables(reader, devices),
  };
}

function readBlockSize(reader: BootstrapReader): 4096 | 512 {
  const bits = reader.u8(SUPERBLOCK.blockBits);
  if (bits === 12) return 4096;
  if (bits === 9) return 512;
  return refuse('blkszbits', SUPERBLOCK.blockBits, `is ${bits}: blocks have 4096 (12) or 512 bytes (9)`);
}

function readFixedFields(reader: BootstrapReader): void {
  const compat = reader.u32(SUPERBLOCK.compat);
  if ((compat & COMPAT_RAFS_V6) === 0) {
    refuse('feature_compat', SUPERBLOCK.compat, `is 0x${compat.toString(16)}, without the bit of RAFS v6`);
  }
  if ((compat & COMPAT_CHECKSUM) !== 0) {
    refuse('feature_compat', SUPERBLOCK.compat, `is 0x${compat.toString(16)}, with a checksum that RAFS v6 never has`);
  }
  const incompat = reader.u32(SUPERBLOCK.incompat);
  if (incompat !== INCOMPAT_RAFS_V6) {
    refuse('feature_incompat', SUPERBLOCK.incompat, `is 0x${incompat.toString(16)}: RAFS v6 has 0xc`);
  }
  mustBe(reader.u32(SUPERBLOCK.checksum), 0, 'checksum', SUPERBLOCK.checksum);
  mustBe(reader.u8(SUPERBLOCK.extensionSlots), 0, 'sb_extslots', SUPERBLOCK.extensionSlots);
  mustBe(reader.u32(SUPERBLOCK.xattrBlock), 0, 'xattr_blkaddr', SUPERBLOCK.xattrBlock);
  mustBe(reader.u16(SUPERBLOCK.algorithms), 0, 'available_compr_algs', SUPERBLOCK.algorithms);
  mustBe(reader.u16(SUPERBLOCK.deviceSlot), DEVICE_TABLE_SLOT, 'devt_slotoff', SUPERBLOCK.deviceSlot);
  mustBe(reader.u8(SUPERBLOCK.directoryBlockBits), 0, 'dirblkbits', SUPERBLOCK.directoryBlockBits);
  mustBe(reader.u8(SUPERBLOCK.xattrPrefixes), 0, 'xattr_prefix_count', SUPERBLOCK.xattrPrefixes);
}

function mustBe(value: number, expected: number, field: string, offset: number): void {
  if (value !== expected) refuse(field, offset, `is ${value}: RAFS v6 has ${expected}`);
}

function readFlags(
  reader: BootstrapReader,
  blockSize: number,
): Pick<Superblock, 'compressor' | 'digester' | 'explicitIds' | 'hasXattrs' | 'inlinedDigests'> {
  const offset = EXTENSION.flags;
  const high = reader.u32(offset + 4);
  const flags = reader.u32(offset);
  const shown = `is 0x${(high * 2 ** 32 + flags).toString(16)}`;
  if (high !== 0 || (flags & ~KNOWN_FLAGS) !== 0) refuse('s_flags', offset, `${shown}, with unknown bits`);
  if ((flags & FLAGS.encryptionAes) !== 0) refuse('s_flags', offset, `${shown}: encrypted images are not read`);
  if (((flags & FLAGS.tarfs) !== 0) !== (blockSize === 512)) {
    refuse('s_flags', offset, `${shown}: blocks of 512 bytes and the bit of tar files go together`);
  }
  const compressor = onlyOne(COMPRESSOR_FLAGS, flags);
  if (compressor === undefined) refuse('s_flags', offset, `${shown}, which is not one compressor`);
  const digester = onlyOne(DIGESTER_FLAGS, flags);
  if (digester === undefined) refuse('s_flags', offset, `${shown}, which is not one digest`);
  return {
    compressor,
    digester,
    explicitIds: (flags & FLAGS.explicitIds) !== 0,
    hasXattrs: (flags & FLAGS.hasXattrs) !== 0,
    inlinedDigests: (flags & FLAGS.inlinedDigests) !== 0,
  };
}

function onlyOne<Name extends string>(bits: Readonly<Record<Name, number>>, flags: number): Name | undefined {
  const found = (Object.keys(bits) as Name[]).filter((name) => (flags & bits[name]) !== 0);
  return found.length === 1 ? found[0] : undefined;
}

function readTables(
  reader: BootstrapReader,
  devices: number,
): Pick<Superblock, 'chunkSize' | 'blobTable' | 'chunkTable' | 'prefetchTable'> {
  const chunkSize = reader.u32(EXTENSION.chunkSize);
  if (!isChunkSize(chunkSize)) {
    refuse('s_chunk_size', EXTENSION.chunkSize, `is ${chunkSize}: it is a power of two from 4 KiB to 16 MiB`);
  }
  const tablesFrom = DEVICE_TABLE_OFFSET + devices * DEVICE_SLOT_LENGTH;
  const table = (name: string, at: { offset: number; length: number }, length: number, unit: number, page: number) => {
    const offset = reader.u64(at.offset);
    if (length % unit !== 0) {
      refuse(`s_${name}_table_size`, at.length, `is ${length}, not a multiple of ${unit}`);
    }
    if (length === 0) return { offset, entries: 0, name, fieldOffset: at.offset, end: offset };
    if (offset % page !== 0 || offset < PAGE || offset < tablesFrom) {
      refuse(`s_${name}_table_offset`, at.offset, `is ${offset}: not aligned or not behind the device table`);
    }
    if (!reader.has(offset, 0)) {
      refuse(`s_${name}_table_offset`, at.offset, `is ${offset}, beyond the end of the file`);
    }
    if (!reader.has(offset, length)) {
      refuse(`s_${name}_table_size`, at.length, `is ${length}, more than the file has from there`);
    }
    return { offset, entries: length / unit, name, fieldOffset: at.offset, end: offset + length };
  };

  const blobs = table(
    'blob',
    { offset: EXTENSION.blobTableOffset, length: EXTENSION.blobTableLength },
    reader.u32(EXTENSION.blobTableLength),
    BLOB_ENTRY_LENGTH,
    PAGE,
  );
  if (blobs.entries !== devices) {
    refuse('s_blob_table_size', EXTENSION.blobTableLength, `is of ${blobs.entries} blobs, extra_devices ${devices}`);
  }
  const chunks = table(
    'chunk',
    { offset: EXTENSION.chunkTableOffset, length: EXTENSION.chunkTableLength },
    reader.u64(EXTENSION.chunkTableLength),
    CHUNK_ENTRY_LENGTH,
    PAGE,
  );
  // Older builders gave a size to the table that they left out.
  const hasPrefetch = reader.u64(EXTENSION.prefetchTableOffset) !== 0;
  const prefetch = table(
    'prefetch',
    { offset: EXTENSION.prefetchTableOffset, length: EXTENSION.prefetchTableLength },
    hasPrefetch ? reader.u32(EXTENSION.prefetchTableLength) : 0,
    PREFETCH_ENTRY_LENGTH,
    PREFETCH_ENTRY_LENGTH,
  );
  if (prefetch.entries > MAX_PREFETCH) {
    const fact = `is of ${prefetch.entries} files, more than ${MAX_PREFETCH}`;
    refuse('s_prefetch_table_size', EXTENSION.prefetchTableLength, fact);
  }
  const placed = [blobs, chunks, prefetch].filter((each) => each.entries > 0).sort((a, b) => a.offset - b.offset);
  for (const [index, each] of placed.entries()) {
    const before = placed[index - 1];
    if (before !== undefined && before.end > each.offset) {
      refuse(`s_${each.name}_table_offset`, each.fieldOffset, `is ${each.offset}, inside the ${before.name} table`);
    }
  }
  return { chunkSize, blobTable: blobs, chunkTable: chunks, prefetchTable: prefetch };
}

export function isChunkSize(size: number): boolean {
  return size >= MIN_CHUNK_SIZE && size <= MAX_CHUNK_SIZE && (size & (size - 1)) === 0;
}

/** What a superblock says beside the image itself; offsets from the file's begin. */
export interface SuperblockFacts {
  readonly names: number;
  /** Of all blobs. */
  readonly blocks: number;
  readonly metaOffset: number;
  readonly hasXattrs: boolean;
  readonly blobTable: number;
  readonly chunkTable: Table;
  readonly prefetchTable: number;
}

/** Writes superblock and extension into zeros. */
export function writeSuperblock(bytes: Buffer, image: RafsImage, facts: SuperblockFacts): void {
  const { blobs, prefetch, blockSize } = image;
  bytes.writeUInt32LE(EROFS_MAGIC, SUPERBLOCK.magic);
  bytes.writeUInt32LE(COMPAT_RAFS_V6, SUPERBLOCK.compat);
  bytes.writeUInt8(Math.log2(blockSize), SUPERBLOCK.blockBits);
  bytes.writeUInt16LE(ROOT_NID, SUPERBLOCK.rootNid);
  bytes.writeBigUInt64LE(BigInt(facts.names), SUPERBLOCK.inodes);
  bytes.writeUInt32LE(facts.blocks % 2 ** 32, SUPERBLOCK.blocks);
  bytes.writeUInt32LE(facts.metaOffset / blockSize, SUPERBLOCK.metaBlock);
  bytes.writeUInt32LE(INCOMPAT_RAFS_V6, SUPERBLOCK.incompat);
  bytes.writeUInt16LE(blobs.length, SUPERBLOCK.devices);
  bytes.writeUInt16LE(DEVICE_TABLE_SLOT, SUPERBLOCK.deviceSlot);
  const inlinedDigests =
    blobs.length > 0 && blobs.every((blob) => (blob.features & BLOB_FEATURES.inlinedDigests) !== 0);
  const flags =
    COMPRESSOR_FLAGS[image.compressor] |
    DIGESTER_FLAGS[image.digester] |
    FLAGS.encryptionNone |
    (image.explicitIds ? FLAGS.explicitIds : 0) |
    (facts.hasXattrs ? FLAGS.hasXattrs : 0) |
    (inlinedDigests ? FLAGS.inlinedDigests : 0) |
    (blockSize === 512 ? FLAGS.tarfs : 0);
  bytes.writeUInt32LE(flags, EXTENSION.flags);
  bytes.writeBigUInt64LE(BigInt(facts.blobTable), EXTENSION.blobTableOffset);
  bytes.writeUInt32LE(blobs.length * BLOB_ENTRY_LENGTH, EXTENSION.blobTableLength);
  bytes.writeUInt32LE(image.chunkSize, EXTENSION.chunkSize);
  bytes.writeBigUInt64LE(BigInt(facts.chunkTable.offset), EXTENSION.chunkTableOffset);
  bytes.writeBigUInt64LE(BigInt(facts.chunkTable.entries * CHUNK_ENTRY_LENGTH), EXTENSION.chunkTableLength);
  if (prefetch.length === 0) return;
  bytes.writeBigUInt64LE(BigInt(facts.prefetchTable), EXTENSION.prefetchTableOffset);
  bytes.writeUInt32LE(prefetch.length * PREFETCH_ENTRY_LENGTH, EXTENSION.prefetchTableLength);
}
