import type { ByteString } from '@pantala/base';
import type { Attributes, Directory, Node } from './node.ts';

/**
 * How a layer says that something below is gone: `oci` by files named `.wh.NAME` and `.wh..wh..opq` (OCI image
 * specification, layers), `overlayfs` by character devices 0:0 and the extended attribute `overlay.opaque` (Linux),
 * `none` not at all: such names are files like others.
 */
export type WhiteoutSpec = 'oci' | 'overlayfs' | 'none';

const OCI_PREFIX = '.wh.';
/** Hides all that lower layers have in its directory. Other names with this begin were bookkeeping of aufs. */
const OCI_OPAQUE = '.wh..wh..opq';
const OCI_META_PREFIX = '.wh..wh.';
const OVERLAY_OPAQUE: readonly ByteString[] = ['trusted.overlay.opaque', 'user.overlay.opaque'];

/** What a directory of a layer hides of the same directory in the layers below. */
export interface Hidden {
  readonly everything: boolean;
  readonly names: ReadonlySet<ByteString>;
}

const NOTHING: Hidden = { everything: false, names: new Set() };

export function hiddenBy<Content>(directory: Directory<Content>, spec: WhiteoutSpec): Hidden {
  if (spec === 'none') return NOTHING;
  const names = new Set<ByteString>();
  let everything = spec === 'overlayfs' && isOpaque(directory.attributes);
  for (const [name, node] of directory.entries) {
    if (!isWhiteout(name, node, spec)) continue;
    if (spec === 'overlayfs') names.add(name);
    else if (name === OCI_OPAQUE) everything = true;
    else if (!name.startsWith(OCI_META_PREFIX)) names.add(name.slice(OCI_PREFIX.length));
  }
  return { everything, names };
}

/** Whether an entry says something about lower layers and is no file of its own. */
export function isWhiteout<Content>(name: ByteString, node: Node<Content>, spec: WhiteoutSpec): boolean {
  if (spec === 'oci') return name.startsWith(OCI_PREFIX);
  return spec === 'overlayfs' && node.kind === 'character' && node.major === 0 && node.minor === 0;
}

/** Without what is only said to lower layers. */
export function withoutMarks(attributes: Attributes, spec: WhiteoutSpec): Attributes {
  if (spec !== 'overlayfs' || !isOpaque(attributes)) return attributes;
  return { ...attributes, xattrs: new Map([...attributes.xattrs].filter(([name]) => !OVERLAY_OPAQUE.includes(name))) };
}

function isOpaque({ xattrs }: Attributes): boolean {
  return OVERLAY_OPAQUE.some((name) => {
    const value = xattrs.get(name);
    return value?.length === 1 && value[0] === 0x79;
  });
}
