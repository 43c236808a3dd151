import { type ByteString, PantalaError } from '@pantala/base';
import type { Directory, Node } from '@pantala/rafs';

/** A name in a tree and what it stands for. */
export interface TreeEntry<Content> {
  /** Relative to the top, which is `.` itself. */
  readonly path: ByteString;
  readonly node: Node<Content>;
  /** Where the same file came first, when this is a hard link to it. */
  readonly first: ByteString | undefined;
}

/** Every entry of a tree: a directory before what it holds, names in the order of their bytes. */
export function* treeEntries<Content>(root: Directory<Content>): Generator<TreeEntry<Content>> {
  yield { path: '.', node: root, first: undefined };
  const firsts = new Map<Node<Content>, ByteString>();
  // A stack instead of recursion: trees may be thousands of directories deep.
  const open = [{ prefix: '', entries: sorted(root) }];
  for (let level = open.at(-1); level !== undefined; level = open.at(-1)) {
    const next = level.entries.next();
    if (next.done === true) {
      open.pop();
      continue;
    }
    const [name, node] = next.value;
    const path = level.prefix + name;
    if (node.kind === 'directory') {
      yield { path, node, first: undefined };
      open.push({ prefix: `${path}/`, entries: sorted(node) });
      continue;
    }
    const first = firsts.get(node);
    if (first === undefined) firsts.set(node, path);
    yield { path, node, first };
  }
}

function sorted<Content>(directory: Directory<Content>): Iterator<[ByteString, Node<Content>]> {
  return [...directory.entries].sort(([a], [b]) => (a < b ? -1 : 1)).values();
}

/**
 * What a path leads to, without following symbolic links. `/`, `.` and the empty path are the top.
 *
 * @throws `not-found` naming the part that is not there
 */
export function nodeAt<Content>(root: Directory<Content>, path: ByteString): Node<Content> {
  let node: Node<Content> = root;
  for (const name of path.split('/')) {
    if (name === '' || name === '.') continue;
    const below: Node<Content> | undefined = node.kind === 'directory' ? node.entries.get(name) : undefined;
    if (below === undefined) throw new PantalaError('not-found', `the image has no ${path}: there is no ${name}`);
    node = below;
  }
  return node;
}

/** Names of each file: more than one for hard links, and the number of entries below with itself for a directory. */
export function linkCounts<Content>(root: Directory<Content>): Map<Node<Content>, number> {
  const counts = new Map<Node<Content>, number>();
  for (const { node } of treeEntries(root)) {
    if (node.kind !== 'directory') {
      counts.set(node, (counts.get(node) ?? 0) + 1);
      continue;
    }
    let folders = 0;
    for (const below of node.entries.values()) if (below.kind === 'directory') folders++;
    counts.set(node, 2 + folders);
  }
  return counts;
}
