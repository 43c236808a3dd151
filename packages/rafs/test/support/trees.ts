import { type ByteString, byteString } from '@pantala/base';
import fc from 'fast-check';
import type { Attributes, Device, Directory, Node, RegularFile, Special, Symlink, Timestamp } from '../../src/index.ts';
import { NO_XATTRS } from '../../src/index.ts';

/**
 * Generated trees with what images can hold: every kind of file, hard links, extended attributes, names and targets
 * of any bytes, long names, directories that are empty, deep or of several blocks.
 */

const bytes = (min: number, max: number, forbidden: readonly number[]): fc.Arbitrary<ByteString> =>
  fc
    .array(fc.integer({ min: 1, max: 255 }), { minLength: min, maxLength: max })
    .map((codes) => byteString(Uint8Array.from(codes.map((code) => (forbidden.includes(code) ? 0x5f : code)))));

const SLASH = 0x2f;

/** Names of files: text, bytes that are no text, such that sort before `.`, long ones. */
export const arbitraryName: fc.Arbitrary<ByteString> = fc
  .oneof(
    { weight: 6, arbitrary: fc.stringMatching(/^[a-f]{1,2}$/) },
    {
      weight: 2,
      arbitrary: fc.constantFrom('!', '-a', '.a', '..a', '...', ' ', '\n', 'a.b', '\xff\xfe', 'Gr\xc3\xbc\xc3\x9fe'),
    },
    { weight: 2, arbitrary: bytes(1, 20, [SLASH]) },
    { weight: 1, arbitrary: bytes(200, 255, [SLASH]) },
    { weight: 1, arbitrary: bytes(255, 255, [SLASH]) },
  )
  .filter((name) => name !== '.' && name !== '..');

const arbitraryTime: fc.Arbitrary<Timestamp> = fc.record({
  seconds: fc.oneof(
    fc.integer(),
    fc.integer({ min: -(2 ** 40), max: 2 ** 40 }),
    fc.constantFrom(0, -1, 2 ** 31, 2 ** 32),
  ),
  nanoseconds: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 999_999_999 })),
});

const arbitraryXattrName: fc.Arbitrary<ByteString> = fc.oneof(
  fc.constant('trusted.overlay.x'),
  fc
    .tuple(fc.constantFrom('user.', 'trusted.', 'security.'), fc.oneof(bytes(1, 8, []), bytes(246, 246, [])))
    .map(([prefix, suffix]) => prefix + suffix),
);

/** Version 2, then tag, permissions and id of each entry, as Linux has them in extended attributes. */
const ACL = Buffer.from(
  '0200000001000600ffffffff02000400d204000004000400ffffffff080006007111010010000600ffffffff20000400ffffffff',
  'hex',
);

const CAPABILITY = Buffer.from('0100000200200000000000000000000000000000', 'hex');

/** Such whose values the kernel looks into. */
const arbitraryKnownXattr: fc.Arbitrary<[ByteString, Uint8Array]> = fc.constantFrom(
  ['system.posix_acl_access', ACL],
  ['system.posix_acl_default', ACL],
  ['security.capability', CAPABILITY],
);

const arbitraryXattrValue: fc.Arbitrary<Uint8Array> = fc.oneof(
  { weight: 8, arbitrary: fc.uint8Array({ maxLength: 40 }) },
  { weight: 1, arbitrary: fc.constantFrom(3900, 4096, 9000).map((length) => new Uint8Array(length).fill(0x78)) },
);

/** Linux has neither user's attributes nor ACLs on what is no regular file or directory. */
const arbitrarySpecialXattrs: fc.Arbitrary<ReadonlyMap<ByteString, Uint8Array>> = fc.oneof(
  { weight: 5, arbitrary: fc.constant(NO_XATTRS) },
  {
    weight: 1,
    arbitrary: fc
      .tuple(fc.constantFrom('trusted.a', 'trusted.overlay.origin', 'security.x'), arbitraryXattrValue)
      .map((entry) => new Map([entry])),
  },
);

const arbitraryXattrs: fc.Arbitrary<ReadonlyMap<ByteString, Uint8Array>> = fc.oneof(
  { weight: 5, arbitrary: fc.constant(NO_XATTRS) },
  {
    weight: 1,
    arbitrary: fc
      .array(
        fc.oneof(
          { weight: 4, arbitrary: fc.tuple(arbitraryXattrName, arbitraryXattrValue) },
          { weight: 1, arbitrary: arbitraryKnownXattr },
        ),
        { minLength: 1, maxLength: 4 },
      )
      .map((entries) => new Map(entries)),
  },
);

/** Linux takes one more for no owner. */
const MAX_OWNER = 2 ** 32 - 2;

const attributesWith = (xattrs: fc.Arbitrary<ReadonlyMap<ByteString, Uint8Array>>): fc.Arbitrary<Attributes> =>
  fc.record({
    mode: fc.oneof(fc.constantFrom(0o755, 0o644), fc.integer({ min: 0, max: 0o7777 })),
    uid: fc.oneof(fc.constantFrom(0, 1000), fc.integer({ min: 0, max: MAX_OWNER })),
    gid: fc.oneof(fc.constantFrom(0, 1000), fc.integer({ min: 0, max: MAX_OWNER })),
    mtime: arbitraryTime,
    xattrs,
  });

export const arbitraryAttributes = attributesWith(arbitraryXattrs);
const arbitrarySpecialAttributes = attributesWith(arbitrarySpecialXattrs);

const arbitrarySymlink: fc.Arbitrary<Symlink> = fc.record({
  kind: fc.constant('symlink' as const),
  attributes: arbitrarySpecialAttributes,
  target: fc.oneof(
    { weight: 6, arbitrary: bytes(1, 60, []) },
    {
      weight: 1,
      arbitrary: fc.constantFrom(511, 512, 513, 3968, 4032, 4033, 4095).map((length) => 't'.repeat(length)),
    },
  ),
});

const arbitraryDevice: fc.Arbitrary<Device> = fc.record({
  kind: fc.constantFrom('character' as const, 'block' as const),
  attributes: arbitrarySpecialAttributes,
  major: fc.oneof(fc.constantFrom(0, 1, 8), fc.integer({ min: 0, max: 0xfff })),
  minor: fc.oneof(fc.constantFrom(0, 1, 17), fc.integer({ min: 0, max: 0xfffff })),
});

const arbitrarySpecial: fc.Arbitrary<Special> = fc.record({
  kind: fc.constantFrom('fifo' as const, 'socket' as const),
  attributes: arbitrarySpecialAttributes,
});

/** A regular file but for its attributes. */
export interface FileData<Content> {
  readonly size: number;
  readonly content: Content;
}

export function arbitraryTree<Content>(data: fc.Arbitrary<FileData<Content>>): fc.Arbitrary<Directory<Content>> {
  const regular: fc.Arbitrary<RegularFile<Content>> = fc
    .tuple(arbitraryAttributes, data)
    .map(([attributes, { size, content }]) => ({ kind: 'regular', attributes, size, content }));
  const { directory } = fc.letrec<{ directory: Directory<Content>; node: Node<Content> }>((tie) => ({
    directory: fc
      .record({
        attributes: arbitraryAttributes,
        entries: fc.array(fc.tuple(arbitraryName, tie('node')), { maxLength: 8 }),
      })
      .map(({ attributes, entries }) => ({ kind: 'directory' as const, attributes, entries: new Map(entries) })),
    node: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      { weight: 5, arbitrary: regular },
      { weight: 1, arbitrary: arbitrarySymlink },
      { weight: 1, arbitrary: arbitraryDevice },
      { weight: 1, arbitrary: arbitrarySpecial },
      { weight: 4, arbitrary: tie('directory') },
    ),
  }));
  return fc
    .record({
      root: directory,
      links: fc.array(fc.tuple(fc.nat(), fc.nat(), arbitraryName), { maxLength: 6 }),
      crowd: fc.oneof(
        { weight: 6, arbitrary: fc.constant(undefined) },
        {
          weight: 1,
          arbitrary: fc.record({ into: fc.nat(), count: fc.integer({ min: 50, max: 400 }), node: regular }),
        },
      ),
    })
    .map(({ root, links, crowd }) => {
      if (crowd !== undefined) addCrowd(pick(directoriesOf(root), crowd.into), crowd.count, crowd.node);
      for (const [file, folder, name] of links) addLink(root, file, folder, name);
      return root;
    });
}

/** A directory of several blocks. */
function addCrowd<Content>(directory: Directory<Content>, count: number, like: RegularFile<Content>): void {
  for (let index = 0; index < count; index++) {
    directory.entries.set(`crowd-${index}`.padEnd(12 + ((index * 7) % 90), '-'), { ...like });
  }
}

function addLink<Content>(root: Directory<Content>, file: number, folder: number, name: ByteString): void {
  const directories = directoriesOf(root);
  const files = directories.flatMap((each) => [...each.entries.values()].filter((node) => node.kind !== 'directory'));
  const into = pick(directories, folder);
  if (files.length > 0 && !into.entries.has(name)) into.entries.set(name, pick(files, file));
}

function directoriesOf<Content>(root: Directory<Content>): Directory<Content>[] {
  const found = [root];
  for (let next = 0; next < found.length; next++) {
    for (const node of (found[next] as Directory<Content>).entries.values()) {
      if (node.kind === 'directory') found.push(node);
    }
  }
  return found;
}

function pick<Item>(items: readonly Item[], index: number): Item {
  return items[index % items.length] as Item;
}
