import type { ByteString } from '@pantala/base';
import { type Directory, type Node, walk } from '@pantala/rafs';

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
  const firsts = new Map<Node<Content>, ByteString>();
  for (const { path: absolute, node } of walk(root)) {
    const path = absolute === '/' ? '.' : absolute.slice(1);
    const first = firsts.get(node);
    if (first === undefined && node.kind !== 'directory') firsts.set(node, path);
    yield { path, node, first };
  }
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
