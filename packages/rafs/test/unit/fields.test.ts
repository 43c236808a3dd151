import { describe, expect, it } from 'vitest';
import { decodeBootstrap, encodeBootstrap, nodeAt } from '../../src/index.ts';
import { fixture } from '../support/fixtures.ts';

/**
 * A small image of the real builder: root at 0x3000, `/d1` at 0x32e0 with its entries (`.`, `..`, `big`, `d2`, `two`)
 * from 0x3320, `/d1/big` of four chunks at 0x3380 with its indexes from 0x33c0, `/empty` at 0x30e0, `/fifo` at 0x3120,
 * `/sl` at 0x31c0, `/xa` at 0x3220 with its attributes from 0x3260, the chunk table from 0x6000.
 */
const VALID = fixture('nydus-tools/malformed/valid.boot');

/** Bytes of the field, where it stands, and what is written there. */
type Change = readonly [width: 1 | 2 | 4 | 8, offset: number, value: number];

function changed(...changes: readonly Change[]): Buffer {
  const bytes = Buffer.from(VALID);
  for (const [width, offset, value] of changes) {
    const number = BigInt(value);
    for (let index = 0; index < width; index++) bytes[offset + index] = Number((number >> BigInt(8 * index)) & 0xffn);
  }
  return bytes;
}

function faultOf(bytes: Buffer): string {
  try {
    decodeBootstrap(bytes);
  } catch (error) {
    const { code, details } = error as { code: string; details: { field: string; offset: number } };
    return `${code} ${details.field} 0x${details.offset.toString(16)}`;
  }
  return 'none';
}

const ENTRIES = 0x3320;
const BIG = 0x3380;
const BIG_INDEXES = 0x33c0;
const CHUNKS = 0x6000;

describe('every field that says what cannot be is named', () => {
  it.each<[string, readonly Change[], string, number]>([
    ['a checksum', [[4, 1028, 1]], 'checksum', 1028],
    ['no sign of RAFS v6', [[4, 1032, 0]], 'feature_compat', 1032],
    ['the sign of a checksum', [[4, 1032, 0x4000_0001]], 'feature_compat', 1032],
    ['small blocks without tars', [[1, 1036, 9]], 's_flags', 1152],
    ['extension slots', [[1, 1037, 1]], 'sb_extslots', 1037],
    ['a root behind the end', [[2, 1038, 65535]], 'rootnid_2b', 1038],
    ['no files', [[8, 1040, 0]], 'inos', 1040],
    ['fewer files than there are', [[8, 1040, 71]], 'inos', 1040],
    ['a time too far', [[8, 1048, 2 ** 62]], 'epoch', 1048],
    ['a second of nanoseconds', [[4, 1056, 1e9]], 'fixed_nsec', 1056],
    ['blocks that are not the blobs’', [[4, 1060, 151]], 'blocks', 1060],
    ['inodes behind the end', [[4, 1064, 8]], 'meta_blkaddr', 1064],
    ['a feature nobody knows', [[4, 1104, 0x8c]], 'feature_incompat', 1104],
    ['compression of EROFS', [[2, 1108, 1]], 'available_compr_algs', 1108],
    ['more devices than blobs', [[2, 1110, 2]], 's_blob_table_size', 1168],
    ['a device table elsewhere', [[2, 1112, 10]], 'devt_slotoff', 1112],
    ['blocks of directories', [[1, 1114, 1]], 'dirblkbits', 1114],
    ['prefixes of attributes', [[1, 1115, 1]], 'xattr_prefix_count', 1115],
    ['an unknown flag', [[4, 1152, 0x0100_04b4]], 's_flags', 1152],
    ['an unknown high flag', [[4, 1156, 1]], 's_flags', 1152],
    ['encryption', [[4, 1152, 0x0200_00b4]], 's_flags', 1152],
    ['tars with large blocks', [[4, 1152, 0x0100_02b4]], 's_flags', 1152],
    ['two digests', [[4, 1152, 0x0100_00bc]], 's_flags', 1152],
    ['attributes that are denied', [[4, 1152, 0x0100_0094]], 'i_xattr_icount', 0x3222],
    ['digests in blobs that have none', [[4, 1152, 0x0100_01b4]], 's_flags', 1152],
    ['a blob table at 0', [[8, 1160, 0]], 's_blob_table_offset', 1160],
    ['a blob table askew', [[8, 1160, 4097]], 's_blob_table_offset', 1160],
    ['a blob table behind the end', [[8, 1160, 0x9000]], 's_blob_table_offset', 1160],
    ['a chunk table in the blob table', [[8, 1176, 0x1000]], 's_chunk_table_offset', 1176],
    ['a chunk table of too many', [[8, 1184, 80_000]], 's_chunk_table_size', 1184],
    ['half an entry to prefetch', [[4, 1200, 6]], 's_prefetch_table_size', 1200],
    ['a prefetch table in the blob table', [[8, 1192, 0x1010]], 's_prefetch_table_offset', 1192],
    ['a stranger to prefetch', [[4, 0x1100, 129]], 'prefetch_nid', 0x1100],
    ['blocks of a device', [[4, 1472, 151]], 'blocks', 1472],
    ['a device in the bootstrap', [[4, 1476, 7]], 'mapped_blkaddr', 1476],
    ['a device behind all blocks', [[4, 1476, 2 ** 32 - 1]], 'mapped_blkaddr', 1476],
    ['another chunk size', [[4, 4164, 4096]], 'chunk_size', 4164],
    ['an unknown compressor', [[4, 4172, 9]], 'compression_algo', 4172],
    ['an unknown digest', [[4, 4176, 2]], 'digest_algo', 4176],
    ['an unknown feature', [[4, 4180, 0x4000_1001]], 'features', 4180],
    ['ZRan without its entries', [[4, 4180, 0x4000_0009]], 'features', 4180],
    ['a tar with large blocks', [[4, 4180, 0x4000_0041]], 'features', 4180],
    ['an encrypted blob', [[4, 4180, 0x4000_0101]], 'features', 4180],
    ['an enormous blob', [[8, 4184, 2 ** 41]], 'compressed_size', 4184],
    ['a decoded blob of half a block', [[8, 4192, 622_593]], 'uncompressed_size', 4192],
    ['an empty blob', [[8, 4192, 0]], 'uncompressed_size', 4192],
    ['a TOC larger than its blob', [[4, 4200, 200_000]], 'blob_toc_size', 4200],
    ['chunk information behind the end', [[8, 4208, 160_000]], 'ci_offset', 4208],
    ['chunk information that grows', [[8, 4216, 1200]], 'ci_compressed_size', 4216],
    ['chunk information of too much', [[8, 4224, 1121]], 'ci_uncompressed_size', 4224],
    ['an enormous meta blob', [[8, 4296, 2 ** 50]], 'blob_meta_size', 4296],
    ['a hole', [[4, CHUNKS + 36, 2]], 'flags', CHUNKS + 36],
    ['a batch where there is none', [[4, CHUNKS + 36, 0x18]], 'flags', CHUNKS + 36],
    ['a chunk of nothing stored', [[4, CHUNKS + 40, 0]], 'compressed_size', CHUNKS + 40],
    ['a chunk of nothing', [[4, CHUNKS + 44, 0]], 'uncompressed_size', CHUNKS + 44],
    ['a chunk larger than chunks', [[4, CHUNKS + 44, 65_537]], 'uncompressed_size', CHUNKS + 44],
    ['a chunk askew', [[8, CHUNKS + 56, 1]], 'uncompressed_offset', CHUNKS + 56],
    ['a chunk behind its blob', [[8, CHUNKS + 56, 622_592]], 'uncompressed_offset', CHUNKS + 56],
    ['an unknown layout', [[2, BIG, 0xd]], 'i_format', BIG],
    ['an unknown bit of the format', [[2, BIG, 0x19]], 'i_format', BIG],
    ['a file without chunks', [[2, BIG, 1]], 'i_format', BIG],
    ['a directory by chunks', [[2, 0x32e0, 9]], 'i_format', 0x32e0],
    ['what is reserved', [[2, BIG + 6, 1]], 'i_nb', BIG + 6],
    ['no link', [[4, BIG + 44, 0]], 'i_nlink', BIG + 44],
    ['nanoseconds', [[4, BIG + 40, 1e9]], 'i_mtime_nsec', BIG + 40],
    ['a time of a file too far', [[8, BIG + 32, 2 ** 62]], 'i_mtime', BIG + 32],
    ['a fifo of a byte', [[8, 0x3128, 1]], 'i_size', 0x3128],
    ['a symlink to nothing', [[8, 0x31c8, 0]], 'i_size', 0x31c8],
    ['a symlink to NUL', [[1, 0x3200, 0]], 'target', 0x3200],
    ['a directory without entries', [[8, 0x32e8, 0]], 'i_size', 0x32e8],
    ['a directory with nothing behind it', [[8, 0x32e8, 4096]], 'i_size', 0x32e8],
    ['a directory that crosses its block', [[8, 0x32e8, 3500]], 'i_size', 0x32e8],
    [
      'a directory behind the end',
      [
        [2, 0x32e0, 1],
        [4, 0x32f0, 8],
      ],
      'i_u',
      0x32f0,
    ],
    ['no indexes', [[4, BIG + 16, 0x06]], 'i_u', BIG + 16],
    ['a chunk format with more', [[4, BIG + 16, 0x1_0026]], 'i_u', BIG + 16],
    ['48 bits', [[4, BIG + 16, 0x66]], 'i_u', BIG + 16],
    ['chunks of which the kernel sees too few', [[4, BIG + 16, 0x25]], 'i_u', BIG + 16],
    ['the bootstrap as a device', [[2, BIG_INDEXES + 2, 0]], 'device_id', BIG_INDEXES + 2],
    ['a device that is not there', [[2, BIG_INDEXES + 2, 2]], 'device_id', BIG_INDEXES + 2],
    ['a chunk that is not there', [[2, BIG_INDEXES, 1000]], 'ci_index', BIG_INDEXES],
    ['a block of another chunk', [[4, BIG_INDEXES + 4, 5]], 'blkaddr', BIG_INDEXES + 4],
    ['a file longer than its chunks', [[8, BIG + 8, 210_001]], 'ci_index', BIG_INDEXES + 24],
    [
      'a file in one piece that is not',
      [[8, BIG_INDEXES + 8, Number(VALID.readBigUInt64LE(BIG_INDEXES))]],
      'blkaddr',
      BIG_INDEXES + 12,
    ],
    ['a dot that is another', [[8, ENTRIES, 128]], 'nid', ENTRIES],
    ['two dots that are another', [[8, ENTRIES + 12, 151]], 'nid', ENTRIES + 12],
    ['a dot of another kind', [[1, ENTRIES + 10, 1]], 'file_type', ENTRIES + 10],
    ['an entry to nid 0', [[8, ENTRIES + 24, 0]], 'nid', ENTRIES + 24],
    ['a name in the entries', [[2, ENTRIES + 8, 48]], 'name', ENTRIES + 48],
    ['names that go back', [[2, ENTRIES + 32, 3]], 'nameoff', ENTRIES + 32],
    ['a name behind the block', [[2, ENTRIES + 32, 0xffff]], 'nameoff', ENTRIES + 32],
    ['a name with a NUL', [[1, 0x3360, 0]], 'name', 0x335f],
    ['a block that ends with NUL', [[1, 0x3366, 0]], 'name', 0x3364],
    ['names out of order', [[1, 0x3362, 0x61]], 'name', 0x3362],
    ['a file with more names than links', [[8, ENTRIES + 24, 159]], 'nid', ENTRIES + 48],
    ['a name for a directory that has one', [[1, 0x335c, 0x21]], 'nid', ENTRIES],
    ['a namespace nobody has', [[1, 0x326d, 5]], 'e_name_index', 0x326d],
    ['a value behind the end', [[2, 0x326e, 0xffff]], 'e_value_size', 0x326e],
    ['an attribute with a NUL', [[1, 0x3270, 0]], 'e_name', 0x3270],
    ['an attribute without a name', [[1, 0x326c, 0]], 'e_name_len', 0x326c],
  ])('%s', (_, changes, field, offset) => {
    expect(faultOf(changed(...changes))).toBe(`data-loss ${field} 0x${offset.toString(16)}`);
  });

  it('two chunks in one place, or with one index', () => {
    const index = VALID.readUInt32LE(CHUNKS + 72);
    expect(faultOf(changed([4, CHUNKS + 80 + 72, index]))).toBe('data-loss index 0x6098');
    const place = VALID.readUInt32LE(CHUNKS + 56);
    const fault = faultOf(changed([8, CHUNKS + 80 + 56, place]));
    expect(['data-loss uncompressed_offset 0x6038', 'data-loss uncompressed_offset 0x6088']).toContain(fault);
  });
});

describe('what older builders and others write is read', () => {
  it('compact inodes have the time of the image', () => {
    const compact = changed(
      [8, 1048, 1_234_567],
      [4, 1056, 89],
      // Of /empty: compact by chunks, one link, no bytes, its format, number, owner and group.
      [2, 0x30e0, 0x8],
      [2, 0x30e6, 1],
      [4, 0x30e8, 0],
      [4, 0x30ec, 0],
      [4, 0x30f0, 0x24],
      [4, 0x30f4, 3],
      [2, 0x30f8, 1000],
      [2, 0x30fa, 1001],
    );
    expect(nodeAt(decodeBootstrap(compact).root, '/empty')).toMatchObject({
      kind: 'regular',
      size: 0,
      attributes: { uid: 1000, gid: 1001, mtime: { seconds: 1_234_567, nanoseconds: 89 } },
    });
    const reserved = Buffer.from(compact);
    reserved[0x30ec] = 1;
    expect(faultOf(reserved)).toBe('data-loss i_mtime 0x30ec');
  });

  it('a size of the prefetch table that is not there', () => {
    expect(decodeBootstrap(changed([8, 1192, 0], [4, 1200, 0x1234])).prefetch).toEqual([]);
  });

  it('no flag of encryption, and flags that a reader may ignore', () => {
    for (const flags of [0xb4, 0x8100_00b4]) {
      expect(decodeBootstrap(changed([4, 1152, flags])).blobs).toHaveLength(1);
    }
  });

  it('4096 blocks of an image without blobs', () => {
    const { root } = decodeBootstrap(VALID);
    const bytes = encodeBootstrap({
      ...decodeBootstrap(VALID),
      root: { ...root, entries: new Map() },
      blobs: [],
      prefetch: [],
    });
    bytes.writeUInt32LE(4096, 1060);
    expect(decodeBootstrap(bytes).blobs).toEqual([]);
  });

  it('a file that says to have more links than names, as of a directory whose files are linked from outside', () => {
    expect(decodeBootstrap(changed([4, BIG + 44, 7])).root.entries.size).toBeGreaterThan(0);
  });

  it('blobs without a place in one device for all', () => {
    expect(decodeBootstrap(changed([4, 1476, 0])).blobs).toHaveLength(1);
  });
});
