import { type ByteString, bytesOf } from '@pantala/base';
import type { EntryFacts, TreeFacts } from '@pantala/testkit';
import { MODE_OF_KIND } from '../../src/bootstrap/format.ts';
import type { Directory, Node } from '../../src/index.ts';
import { walk } from '../../src/index.ts';

/** A tree as `lstat` would show it; without `sha`, which needs the content. */
export function factsOf<Content>(root: Directory<Content>): TreeFacts {
  const names = new Map<Node<Content>, ByteString[]>();
  for (const { path, node } of walk(root)) {
    const known = names.get(node);
    if (known === undefined) names.set(node, [relative(path)]);
    else known.push(relative(path));
  }
  const facts = new Map<ByteString, EntryFacts>();
  for (const { path, node } of walk(root)) facts.set(relative(path), entryFacts(node, names.get(node) as ByteString[]));
  return facts;
}

function relative(path: ByteString): ByteString {
  return path === '/' ? '.' : path.slice(1);
}

function entryFacts<Content>(node: Node<Content>, names: readonly ByteString[]): EntryFacts {
  const { mode, uid, gid, mtime, xattrs } = node.attributes;
  return {
    mode: (MODE_OF_KIND[node.kind] | mode).toString(8),
    uid,
    gid,
    mtime: String(BigInt(mtime.seconds) * 1_000_000_000n + BigInt(mtime.nanoseconds)),
    nlink: node.kind === 'directory' ? 2 + subdirectories(node) : names.length,
    ...(node.kind === 'regular' ? { size: node.size } : {}),
    ...(node.kind === 'symlink' ? { size: node.target.length, target: bytesOf(node.target).toString('hex') } : {}),
    ...(node.kind === 'character' || node.kind === 'block' ? { rdev: `${node.major}:${node.minor}` } : {}),
    ...(xattrs.size === 0
      ? {}
      : {
          xattr: Object.fromEntries([...xattrs].map(([name, value]) => [name, Buffer.from(value).toString('hex')])),
        }),
    // The first that a walk comes to, as readers of mounted trees do: `a/b` before `a.b`.
    ...(names.length > 1 ? { hl: names[0] as string } : {}),
  };
}

function subdirectories<Content>(directory: Directory<Content>): number {
  return directory.entries.values().reduce((sum, node) => sum + (node.kind === 'directory' ? 1 : 0), 0);
}
