import type { ByteString } from '@pantala/base';
import type { Directory, Node } from './node.ts';

export interface Visit<Content> {
  /** From the root, which is `/`. */
  readonly path: ByteString;
  readonly node: Node<Content>;
}

/**
 * Every name of a tree, the root first, a directory before what it holds, siblings in the order of their bytes. A
 * file with several names comes once for each. `path` is the root's own, empty for the top of all.
 */
export function* walk<Content>(root: Directory<Content>, path: ByteString = ''): Generator<Visit<Content>, void, void> {
  yield { path: path === '' ? '/' : path, node: root };
  const open = [{ prefix: `${path}/`, entries: root.entries, names: sortedNames(root).values() }];
  for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
    const next = top.names.next();
    if (next.done === true) {
      open.pop();
      continue;
    }
    const node = top.entries.get(next.value) as Node<Content>;
    const at = top.prefix + next.value;
    yield { path: at, node };
    if (node.kind === 'directory') {
      open.push({ prefix: `${at}/`, entries: node.entries, names: sortedNames(node).values() });
    }
  }
}

/** In the order of their bytes. */
export function sortedNames<Content>(directory: Directory<Content>): ByteString[] {
  // Without a function it compares code units, which are bytes here.
  return [...directory.entries.keys()].sort();
}

/** What stands at `path`, whose leading slash may be left out; symlinks are not followed. */
export function nodeAt<Content>(root: Directory<Content>, path: ByteString): Node<Content> | undefined {
  let node: Node<Content> | undefined = root;
  for (const name of path.split('/')) {
    if (name === '') continue;
    if (node?.kind !== 'directory') return undefined;
    node = node.entries.get(name);
  }
  return node;
}
