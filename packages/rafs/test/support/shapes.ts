import { type Attributes, type Directory, NO_XATTRS, type Node, type RegularFile } from '../../src/index.ts';

// Trees written down as they look: a file's content stands for itself.

export const ATTRIBUTES: Attributes = {
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtime: { seconds: 1_600_000_000, nanoseconds: 0 },
  xattrs: NO_XATTRS,
};

export const DEVICE: Node<string> = { kind: 'character', attributes: ATTRIBUTES, major: 0, minor: 0 };

export interface Shape {
  readonly [name: string]: Shape | Node<string>;
}

export function file(content: string): RegularFile<string> {
  return { kind: 'regular', attributes: ATTRIBUTES, size: content.length, content };
}

export function folder(shape: Shape, attributes = ATTRIBUTES): Directory<string> {
  const entries = Object.entries(shape).map(([name, value]): [string, Node<string>] => [
    name,
    isNode(value) ? value : folder(value),
  ]);
  return { kind: 'directory', attributes, entries: new Map(entries) };
}

function isNode(value: Shape | Node<string>): value is Node<string> {
  return 'attributes' in value && 'kind' in value;
}
