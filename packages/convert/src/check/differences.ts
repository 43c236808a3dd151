import { type ByteString, shown } from '@pantala/base';
import {
  type Chunk,
  type Directory,
  type FileChunks,
  type Node,
  type RegularFile,
  sortedNames,
  walk,
} from '@pantala/rafs';
import { treeEntries } from '../inspect/entries.ts';

/** A tree that an image is compared with. */
export interface SourceTree<Content> {
  readonly root: Directory<Content>;
  /** Digests of the file's content, cut and digested as the image does it. */
  readonly digests: (file: RegularFile<Content>) => Promise<readonly Uint8Array[]>;
}

/**
 * Every difference between a source and an image, a line each: entries, kinds, permissions, owners, times, extended
 * attributes, link targets, devices, hard links, content. That chunks have the content of their digests is not looked
 * at here (`checkBlobs` does).
 */
export async function* imageDifferences<Content>(
  source: SourceTree<Content>,
  root: Directory,
): AsyncGenerator<string, void, undefined> {
  const links = { source: firstPaths(source.root), image: firstPaths(root) };
  const compared = new Set<Node>();
  yield* attributeDifferences('/', source.root, root);
  const open = [{ path: '/', source: source.root, image: root }];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const inner: typeof open = [];
    for (const name of allNames(next.source, next.image)) {
      const path = next.path + name;
      const expected = next.source.entries.get(name);
      const actual = next.image.entries.get(name);
      if (expected === undefined || actual === undefined) {
        yield* oneSided(path, expected, actual);
        continue;
      }
      if (expected.kind !== actual.kind) {
        yield `${shown(path)}: ${actual.kind}, the source has a ${expected.kind}`;
        continue;
      }
      const [is, was] = [links.image.get(actual), links.source.get(expected)];
      if (is !== was) yield `${shown(path)}: ${linked(is)}, in the source ${linked(was)}`;
      if (compared.has(actual) && is === was) continue;
      compared.add(actual);
      yield* attributeDifferences(path, expected, actual);
      if (expected.kind === 'directory' && actual.kind === 'directory') {
        inner.push({ path: `${path}/`, source: expected, image: actual });
      } else if (expected.kind === 'regular' && actual.kind === 'regular') {
        yield* contentDifferences(path, expected, actual, source);
      } else yield* leafDifferences(path, expected, actual);
    }
    open.push(...inner.reverse());
  }
}

/** Where each file with several names is first met; files with one name are left out. */
function firstPaths<Content>(root: Directory<Content>): Map<Node<Content>, ByteString> {
  const firsts = new Map<Node<Content>, ByteString>();
  for (const { node, first } of treeEntries(root)) if (first !== undefined) firsts.set(node, first);
  return firsts;
}

function linked(first: ByteString | undefined): string {
  return first === undefined ? 'a file with one name' : `a hard link of /${shown(first)}`;
}

function allNames<Content>(source: Directory<Content>, image: Directory): ByteString[] {
  const names = new Set([...sortedNames(source), ...image.entries.keys()]);
  return [...names].sort();
}

function* oneSided<Content>(
  path: ByteString,
  expected: Node<Content> | undefined,
  actual: Node | undefined,
): Generator<string> {
  const [node, what] = actual === undefined ? [expected, 'missing in the image'] : [actual, 'not in the source'];
  yield `${shown(path)}: ${what}`;
  if (node?.kind !== 'directory') return;
  for (const below of walk<unknown>(node)) if (below.path !== '/') yield `${shown(path + below.path)}: ${what}`;
}

function* attributeDifferences<Content>(path: ByteString, source: Node<Content>, image: Node): Generator<string> {
  const [expected, actual] = [source.attributes, image.attributes];
  const line = (what: string, is: string | number, was: string | number): string =>
    `${shown(path)}: ${what} ${is}, the source has ${was}`;
  if (actual.mode !== expected.mode) yield line('mode', octal(actual.mode), octal(expected.mode));
  if (actual.uid !== expected.uid) yield line('uid', actual.uid, expected.uid);
  if (actual.gid !== expected.gid) yield line('gid', actual.gid, expected.gid);
  const [is, was] = [actual.mtime, expected.mtime];
  if (is.seconds !== was.seconds || is.nanoseconds !== was.nanoseconds) {
    yield line('mtime', `${is.seconds} s ${is.nanoseconds} ns`, `${was.seconds} s ${was.nanoseconds} ns`);
  }
  for (const name of new Set([...expected.xattrs.keys(), ...actual.xattrs.keys()])) {
    const [value, wanted] = [hex(actual.xattrs.get(name)), hex(expected.xattrs.get(name))];
    if (value !== wanted) yield line(`xattr ${shown(name)}`, value, wanted);
  }
}

function* leafDifferences<Content>(path: ByteString, source: Node<Content>, image: Node): Generator<string> {
  if (source.kind === 'symlink' && image.kind === 'symlink' && source.target !== image.target) {
    yield `${shown(path)}: leads to ${shown(image.target)}, the source to ${shown(source.target)}`;
  }
  if ('major' in source && 'major' in image && (source.major !== image.major || source.minor !== image.minor)) {
    yield `${shown(path)}: device ${image.major}:${image.minor}, the source has ${source.major}:${source.minor}`;
  }
}

async function* contentDifferences<Content>(
  path: ByteString,
  source: RegularFile<Content>,
  image: RegularFile<FileChunks>,
  { digests }: SourceTree<Content>,
): AsyncGenerator<string> {
  if (source.size !== image.size) {
    yield `${shown(path)}: ${image.size} bytes, the source has ${source.size}`;
    return;
  }
  const expected = await digests(source);
  let offset = 0;
  for (const [index, chunk] of image.content.entries()) {
    if (!isSame(chunk, expected[index])) yield `${shown(path)}: other content from byte ${offset} on`;
    offset += chunk.uncompressedSize;
  }
}

function isSame({ digest }: Chunk, expected: Uint8Array | undefined): boolean {
  return expected !== undefined && Buffer.compare(digest, expected) === 0;
}

function octal(mode: number): string {
  return mode.toString(8).padStart(4, '0');
}

/** Values of attributes in messages are cut: they may have 64 KiB. */
const SHOWN_VALUE = 64;

function hex(value: Uint8Array | undefined): string {
  if (value === undefined) return 'none';
  const text = Buffer.from(value).toString('hex');
  return text.length <= SHOWN_VALUE ? `0x${text}` : `0x${text.slice(0, SHOWN_VALUE)}… (${value.length} bytes)`;
}
