import type { ByteString } from '@pantala/base';
import { type Attributes, type Directory, type Hidden, hiddenBy, walk } from '@pantala/rafs';

/** A layer that is to be merged with those below it. */
export interface TreeLayer<Content> {
  readonly image: { readonly root: Directory<Content> };
  /** Directories that the layer's tar did not describe itself. */
  readonly implied: ReadonlySet<Directory<Content>>;
}

/** Of those that no layer describes. */
const UNKNOWN: Attributes = {
  mode: 0o755,
  uid: 0,
  gid: 0,
  mtime: { seconds: 0, nanoseconds: 0 },
  xattrs: new Map(),
};

/**
 * Gives directories that a layer only implies, by having something below them, the owner, mode and times that the
 * layers below give them, as if the tars had been unpacked one over the other. Layers come from the lowest up.
 */
export function adoptAttributes<Content>(layers: readonly TreeLayer<Content>[]): void {
  const hidden = new Map<Directory<Content>, Hidden>();
  for (const [number, { image, implied }] of layers.entries()) {
    if (implied.size === 0) continue;
    for (const { path, node } of directories(image.root)) {
      if (!implied.has(node)) continue;
      const draft: { attributes: Attributes } = node;
      draft.attributes = belowAttributes(layers, number, path, hidden) ?? UNKNOWN;
    }
  }
}

function* directories<Content>(
  root: Directory<Content>,
): Generator<{ readonly path: ByteString; readonly node: Directory<Content> }> {
  for (const { path, node } of walk(root)) if (node.kind === 'directory') yield { path, node };
}

/** @param hidden what directories hide, as far as it was found out */
function belowAttributes<Content>(
  layers: readonly TreeLayer<Content>[],
  number: number,
  path: ByteString,
  hidden: Map<Directory<Content>, Hidden>,
): Attributes | undefined {
  const names = path.split('/').filter((name) => name !== '');
  // What this layer hides of the layers below it, they do not give.
  if (look(layers[number] as TreeLayer<Content>, names, hidden).hides) return undefined;
  for (let below = number - 1; below >= 0; below--) {
    const { found, hides } = look(layers[below] as TreeLayer<Content>, names, hidden);
    if (found !== undefined) return found.attributes;
    if (hides) return undefined;
  }
  return undefined;
}

/** The directory at a path of one layer, and whether that layer hides what lower ones have there. */
function look<Content>(
  { image }: TreeLayer<Content>,
  names: readonly ByteString[],
  known: Map<Directory<Content>, Hidden>,
): { readonly found: Directory<Content> | undefined; readonly hides: boolean } {
  let directory = image.root;
  let hides = false;
  for (const name of names) {
    let hidden = known.get(directory);
    if (hidden === undefined) {
      hidden = hiddenBy(directory, 'oci');
      known.set(directory, hidden);
    }
    hides ||= hidden.everything || hidden.names.has(name);
    const next = directory.entries.get(name);
    if (next === undefined) return { found: undefined, hides };
    if (next.kind !== 'directory') return { found: undefined, hides: true };
    directory = next;
  }
  return { found: directory, hides };
}
