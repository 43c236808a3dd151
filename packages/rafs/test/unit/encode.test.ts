import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type Attributes,
  BLOB_FEATURES,
  type BlobInfo,
  type Chunk,
  type Directory,
  decodeBootstrap,
  encodeBootstrap,
  NO_XATTRS,
  type Node,
  nodeAt,
  type RafsImage,
  type RegularFile,
  walk,
} from '../../src/index.ts';
import { factsOf } from '../support/facts.ts';
import { fixture } from '../support/fixtures.ts';
import { arbitraryImage } from '../support/images.ts';

const FULL = process.env.PANTALA_FULL === '1';
const RUNS = FULL ? 2000 : 150;

/** What an image says, with the chunks of each path: comparable whatever objects it is made of. */
function sayings(image: RafsImage) {
  const { root, prefetch, ...rest } = image;
  const nodes = new Map<Node, string>();
  const contents = new Map<string, unknown>();
  for (const { path, node } of walk(root)) {
    if (!nodes.has(node)) nodes.set(node, path);
    if (node.kind === 'regular') contents.set(path, node.content.map(plain));
  }
  return {
    ...rest,
    blobs: image.blobs.map((blob) => ({
      ...blob,
      tocDigest: Buffer.from(blob.tocDigest).toString('hex'),
      metaDigest: Buffer.from(blob.metaDigest).toString('hex'),
    })),
    facts: factsOf(root),
    contents,
    prefetch: prefetch.map((node) => nodes.get(node)),
  };
}

function plain(chunk: Chunk) {
  return { ...chunk, digest: Buffer.from(chunk.digest).toString('hex') };
}

describe('an image that is written', () => {
  it('is read as what it was', () => {
    fc.assert(
      fc.property(arbitraryImage, (image) => {
        const bytes = encodeBootstrap(image);
        expect(bytes.length % 4096).toBe(0);
        expect(sayings(decodeBootstrap(bytes))).toEqual(sayings(image));
        expect(encodeBootstrap(image).equals(bytes)).toBe(true);
      }),
      { numRuns: RUNS },
    );
  });

  it('is the same bytes whatever order its directories are in', () => {
    fc.assert(
      fc.property(arbitraryImage, (image) => {
        const bytes = encodeBootstrap(image);
        // What is read has the order of names, and hard links in another order of discovery.
        const again = encodeBootstrap(decodeBootstrap(bytes));
        expect(again.equals(bytes)).toBe(true);
      }),
      { numRuns: Math.ceil(RUNS / 3) },
    );
  });

  it.each(['l-merge-tar', 'l-tar-2', 'm-batch-zstd', 'm-prefetch-fs', 't-targz-ref', 'vhead-y-zstd'])(
    'of the real builder, %s, is read as what it was, and no larger',
    (name) => {
      const theirs = fixture(`nydus-tools/${name}/bootstrap`);
      const image = decodeBootstrap(theirs);
      const ours = encodeBootstrap(image);
      expect(sayings(decodeBootstrap(ours))).toEqual(sayings(image));
      expect(ours.length).toBeLessThanOrEqual(theirs.length);
    },
  );
});

const ATTRIBUTES: Attributes = {
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtime: { seconds: 1_600_000_000, nanoseconds: 0 },
  xattrs: NO_XATTRS,
};

function directory(entries: Iterable<[string, Node]> = []): Directory {
  return { kind: 'directory', attributes: ATTRIBUTES, entries: new Map(entries) };
}

const BLOB: BlobInfo = {
  id: 'ab'.repeat(32),
  chunkSize: 0x100000,
  chunkCount: 100_000,
  compressor: 'none',
  digester: 'sha256',
  features: BLOB_FEATURES.aligned,
  compressedSize: 2 ** 40,
  uncompressedSize: 2 ** 41,
  chunkInfo: { compressor: 'none', offset: 0, compressedSize: 1_600_000, uncompressedSize: 1_600_000 },
  tocSize: 0,
  tocDigest: new Uint8Array(32),
  metaDigest: new Uint8Array(32),
  metaSize: 0,
};

function chunkAt(index: number, uncompressedSize = 0x100000): Chunk {
  const digest = new Uint8Array(32);
  new DataView(digest.buffer).setUint32(0, index);
  return {
    digest,
    blobIndex: 0,
    index,
    compressedOffset: index * 0x1000,
    compressedSize: uncompressedSize,
    uncompressedOffset: index * 0x100000,
    uncompressedSize,
    compressed: false,
    batched: false,
    crc32c: undefined,
  };
}

function imageWith(entries: Iterable<[string, Node]>, changes: Partial<RafsImage> = {}): RafsImage {
  return {
    root: directory(entries),
    blobs: [BLOB],
    chunkSize: 0x100000,
    compressor: 'none',
    digester: 'sha256',
    explicitIds: true,
    blockSize: 4096,
    prefetch: [],
    ...changes,
  };
}

function file(size: number, content: readonly Chunk[], attributes = ATTRIBUTES): RegularFile {
  return { kind: 'regular', attributes, size, content };
}

describe('the layout', () => {
  it('has the root at nid 128, one page behind the begin of the inodes', () => {
    const bytes = encodeBootstrap(imageWith([]));
    expect(bytes.readUInt16LE(1024 + 14)).toBe(128);
    const withoutBlobs = encodeBootstrap(imageWith([], { blobs: [] }));
    expect(withoutBlobs.length).toBe(8192);
    expect(withoutBlobs.readUInt32LE(1024 + 40)).toBe(0);
  });

  it('gives the kernel one extent for a file whose chunks follow each other, and only then', () => {
    const chunks = [chunkAt(0), chunkAt(1), chunkAt(2, 5)];
    const size = 2 * 0x100000 + 5;
    const formatOf = (content: Chunk[]): number => {
      const bytes = encodeBootstrap(imageWith([['f', file(size, content)]]));
      const inode = bytes.readUInt32LE(1024 + 40) * 4096 + 4096;
      // The root with its three entries takes 128 bytes, behind it comes the file.
      return bytes.readUInt32LE(inode + 128 + 16);
    };
    expect(formatOf(chunks)).toBe(0x20 | 10);
    expect(formatOf([chunkAt(1), chunkAt(0), chunkAt(2, 5)])).toBe(0x20 | 8);
  });

  it('keeps hard links of every kind', () => {
    const nodes: Node[] = [
      { kind: 'fifo', attributes: ATTRIBUTES },
      { kind: 'symlink', attributes: ATTRIBUTES, target: 'x' },
      { kind: 'character', attributes: ATTRIBUTES, major: 4095, minor: 1048575 },
      file(0, []),
    ];
    const entries = nodes.flatMap((node, index): [string, Node][] => [
      [`a${index}`, node],
      [`b${index}`, node],
    ]);
    const { root } = decodeBootstrap(encodeBootstrap(imageWith([...entries, ['d', directory(entries)]])));
    for (const index of nodes.keys()) {
      const node = nodeAt(root, `/a${index}`);
      expect(node?.kind).toBe(nodes[index]?.kind);
      expect(nodeAt(root, `/d/b${index}`)).toBe(node);
    }
    expect(nodeAt(root, '/a2')).toMatchObject({ major: 4095, minor: 1048575 });
  });

  const many = FULL ? 1_000_000 : 100_000;
  it(`holds ${many} files with a chunk each, 100,000 of them in one directory`, () => {
    const blob = { ...BLOB, chunkCount: many, chunkInfo: { ...BLOB.chunkInfo, compressedSize: many * 16 } };
    const blobs = [{ ...blob, chunkInfo: { ...blob.chunkInfo, uncompressedSize: many * 16 } }];
    const image = imageWith([], { blobs });
    const nameOf = (index: number): string => `some-file-name-${index}`;
    let into = directory();
    for (let index = 0; index < many; index++) {
      if (index === 0 || (index >= 100_000 && index % 100 === 0)) {
        into = directory();
        image.root.entries.set(`from-${index}`, into);
      }
      into.entries.set(nameOf(index), file(5, [chunkAt((index * 7919) % many, 5)]));
    }
    const bytes = encodeBootstrap(image);
    // An inode with its index takes 96 bytes, a name here at most 34 and an entry of the chunk table 80.
    expect(bytes.length).toBeLessThan(many * 215);
    const { root } = decodeBootstrap(bytes);
    expect((root.entries.get('from-0') as Directory).entries.size).toBe(100_000);
    const last = many - (many > 100_000 ? 100 : many);
    const read = (root.entries.get(`from-${last}`) as Directory).entries.get(nameOf(many - 1)) as RegularFile;
    expect(read.content.map(plain)).toEqual([plain(chunkAt(((many - 1) * 7919) % many, 5))]);
  }, 600_000);

  it('holds files of more than 4 GiB', () => {
    const count = 5000;
    const content = Array.from({ length: count }, (_, index) => chunkAt(index));
    const image = imageWith([['large', file(count * 0x100000, content)]]);
    const read = decodeBootstrap(encodeBootstrap(image));
    expect(sayings(read)).toEqual(sayings(image));
  });
});

describe('what RAFS v6 cannot hold', () => {
  const refused: readonly [string, RafsImage, RegExp][] = [
    ['a long name', imageWith([['n'.repeat(256), directory()]]), /^\/n+ has a name of 256 bytes/],
    ['a name with a slash', imageWith([['a/b', directory()]]), /no file can have/],
    ['dots as a name', imageWith([['..', directory()]]), /no file can have/],
    [
      'a directory with two names',
      (() => {
        const twice = directory();
        return imageWith([
          ['a', directory([['x', twice]])],
          ['b', directory([['y', twice]])],
        ]);
      })(),
      /^\/(a\/x|b\/y) is a directory that has another name already/,
    ],
    [
      'a directory in itself',
      (() => {
        const image = imageWith([]);
        image.root.entries.set('self', image.root);
        return image;
      })(),
      /^\/self is a directory that has another name/,
    ],
    [
      'a foreign namespace',
      imageWith([['f', file(0, [], { ...ATTRIBUTES, xattrs: new Map([['nfs4.acl', new Uint8Array(1)]]) })]]),
      /^\/f extended attribute nfs4\.acl is in no namespace/,
    ],
    [
      'a long value',
      imageWith([['f', file(0, [], { ...ATTRIBUTES, xattrs: new Map([['user.v', new Uint8Array(65536)]]) })]]),
      /65536 bytes, at most 65535/,
    ],
    [
      'a long attribute name',
      imageWith([
        ['f', file(0, [], { ...ATTRIBUTES, xattrs: new Map([[`user.${'n'.repeat(251)}`, new Uint8Array(1)]]) })],
      ]),
      /a name of 256 bytes/,
    ],
    [
      'too many attributes',
      imageWith([
        [
          'f',
          file(0, [], {
            ...ATTRIBUTES,
            xattrs: new Map(Array.from({ length: 5 }, (_, index) => [`user.${index}`, new Uint8Array(60_000)])),
          }),
        ],
      ]),
      /in all, at most 262148/,
    ],
    ['an empty target', imageWith([['l', { kind: 'symlink', attributes: ATTRIBUTES, target: '' }]]), /0 bytes/],
    [
      'a long target',
      imageWith([['l', { kind: 'symlink', attributes: ATTRIBUTES, target: 'x'.repeat(4096) }]]),
      /4096 bytes/,
    ],
    ['a device number', imageWith([['d', { kind: 'block', attributes: ATTRIBUTES, major: 4096, minor: 0 }]]), /4096:0/],
    ['a size that its chunks have not', imageWith([['f', file(5, [chunkAt(0, 6)])]]), /^\/f needs 5 bytes/],
    ['a file without its chunks', imageWith([['f', file(5, [])]]), /^\/f has 5 bytes, but 0 chunks/],
    ['a chunk in no blob', imageWith([['f', file(5, [{ ...chunkAt(0, 5), blobIndex: 1 }])]]), /blob 1 of 1/],
    [
      'two chunks with one index',
      imageWith([
        ['f', file(5, [chunkAt(0, 5)])],
        ['g', file(6, [chunkAt(0, 6)])],
      ]),
      /^\/g has a chunk that differs/,
    ],
    [
      '255 blobs',
      imageWith([], {
        blobs: Array.from({ length: 255 }, (_, index) => ({ ...BLOB, id: index.toString(16).padStart(64, '0') })),
      }),
      /^255 blobs, an image holds at most 254/,
    ],
    ['a blob without its digest', imageWith([], { blobs: [{ ...BLOB, id: 'bootstrap' }] }), /64 hex digits/],
    ['an odd chunk size', imageWith([], { chunkSize: 5000 }), /powers of two/],
    [
      'depth',
      (() => {
        let node = directory();
        for (let depth = 0; depth < 2048; depth++) node = directory([['d', node]]);
        return imageWith([['d', node]]);
      })(),
      /2048 levels deep/,
    ],
    [
      'too long a list to prefetch',
      (() => {
        const image = imageWith([]);
        return { ...image, prefetch: Array.from({ length: 2 ** 20 + 1 }, () => image.root) };
      })(),
      /^1048577 files to prefetch/,
    ],
    ['a prefetched stranger', imageWith([], { prefetch: [directory()] }), /not in the tree/],
  ];

  it.each(refused)('%s is refused, naming it', (_, image, message) => {
    let error: unknown;
    try {
      encodeBootstrap(image);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toMatchObject({ code: 'invalid-argument', message: expect.stringMatching(message) });
  });

  it('254 blobs are held', () => {
    const blobs = Array.from({ length: 254 }, (_, index) => ({ ...BLOB, id: index.toString(16).padStart(64, '0') }));
    const content = [{ ...chunkAt(99_999), blobIndex: 253 }];
    const image = imageWith([['f', file(0x100000, content)]], { blobs });
    expect(sayings(decodeBootstrap(encodeBootstrap(image)))).toEqual(sayings(image));
  });
});
