import { type ByteString, byteString, bytesOf } from '@pantala/base';
import type { Directory, Node, Special } from './node.ts';

/** Symbolic links on the way to one file: what Linux follows at most. */
const MAX_LINKS_FOLLOWED = 40;
/** The path that is meant. No tar makes sockets, so no file of an image is taken for such a mark. */
const TARGET = 'trusted.pantala.link';

/**
 * What stands in a layer's tree, as whiteouts do, for a hard link to a file that only a lower layer has: which file
 * that is shows when the layers are merged. It is a file that every bootstrap can hold, so that a layer can be built,
 * stored and found again without those below it.
 *
 * @param target from the root, without a slash before it
 */
export function linkBelow(target: ByteString): Special {
  const attributes = { mode: 0, uid: 0, gid: 0, mtime: { seconds: 0, nanoseconds: 0 } };
  return { kind: 'socket', attributes: { ...attributes, xattrs: new Map([[TARGET, bytesOf(target)]]) } };
}

/** What such a mark names; undefined for any other file. */
export function targetBelow<Content>(node: Node<Content>): ByteString | undefined {
  const target = node.kind === 'socket' ? node.attributes.xattrs.get(TARGET) : undefined;
  return target && byteString(target);
}

/** What a hard link to `path` is; symbolic links on the way are followed inside the root, the last name is not. */
export function linkedFile<Content>(
  root: Directory<Content>,
  path: ByteString,
): Exclude<Node<Content>, Directory<Content>> | undefined {
  let trail: Directory<Content>[] = [];
  let followed = 0;
  const todo = path.split('/').reverse();
  for (let name = todo.pop(); name !== undefined; name = todo.pop()) {
    if (name === '' || name === '.') continue;
    if (name === '..') {
      trail.pop();
      continue;
    }
    const node = (trail.at(-1) ?? root).entries.get(name);
    if (node === undefined) return undefined;
    if (todo.length === 0) return node.kind === 'directory' ? undefined : node;
    if (node.kind === 'directory') trail.push(node);
    else if (node.kind === 'symlink' && ++followed <= MAX_LINKS_FOLLOWED) {
      if (node.target.startsWith('/')) trail = [];
      todo.push(...node.target.split('/').reverse());
    } else return undefined;
  }
  return undefined;
}
