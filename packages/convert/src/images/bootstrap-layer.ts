import { PantalaError } from '@pantala/base';
import type { Descriptor } from '@pantala/oci';
import {
  decompressed,
  type ImageSource,
  isHole,
  type TarHeader,
  type TarMember,
  walkTar,
  writeTar,
} from '@pantala/oci';
import type { BlobEnd } from '@pantala/rafs';
// Not all of it: a command that mounts an image takes its bootstrap from here, and somebody waits for that.
import { MAX_BOOTSTRAP_LENGTH } from '@pantala/rafs/bootstrap-limits';
import { META_HEADER_LENGTH } from '@pantala/rafs/meta-header';
import { BOOTSTRAP_FOLDER, BOOTSTRAP_PATH, metaPath, OLD_BOOTSTRAP_PATH } from './nydus-manifest.ts';
import { type PackedFile, packFile } from './packed-file.ts';

/** Bytes of a bootstrap layer without compression: bootstrap and chunk information of all blobs. */
export const MAX_BOOTSTRAP_LAYER_LENGTH = 2 * MAX_BOOTSTRAP_LENGTH;

/** The chunk information of a blob as mounts keep it beside the blob, by the blob's id. */
export type BlobMetas = ReadonlyMap<string, Uint8Array>;

/** Chunk information in whole pages, and its header: what a mount would else fetch from each blob. */
export function metaFile({ information, header }: NonNullable<BlobEnd['meta']>): Buffer {
  const filling = (META_HEADER_LENGTH - (information.length % META_HEADER_LENGTH)) % META_HEADER_LENGTH;
  return Buffer.concat([information, Buffer.alloc(filling), header]);
}

/** Writes the layer that has the bootstrap, and with it the chunk information of its blobs. */
export function packBootstrapLayer(
  path: string,
  bootstrap: Uint8Array,
  metas: BlobMetas,
  signal?: AbortSignal,
): Promise<PackedFile> {
  return packFile(path, writeTar(members(bootstrap, metas)), 'gzip', signal);
}

function* members(bootstrap: Uint8Array, metas: BlobMetas): Generator<TarMember> {
  yield { header: headerOf('directory', BOOTSTRAP_FOLDER, 0o755, 0) };
  yield file(BOOTSTRAP_PATH, bootstrap);
  for (const [id, meta] of metas) yield file(metaPath(id), meta);
}

function file(path: string, content: Uint8Array): TarMember {
  return { header: headerOf('regular', path, 0o444, content.length), content: () => [content] };
}

function headerOf(kind: TarHeader['kind'], path: string, mode: number, size: number): TarHeader {
  const mtime = { seconds: 0, nanoseconds: 0 };
  return { kind, path, mode, uid: 0, gid: 0, mtime, size, linkTarget: '', major: 0, minor: 0, xattrs: new Map() };
}

/** What a bootstrap layer holds. */
export interface BootstrapLayerContent {
  /** In memory of its own. */
  readonly bootstrap: Buffer<ArrayBuffer>;
  readonly metas: BlobMetas;
}

/**
 * @param wanted `bootstrap`: the rest is checked and not kept
 * @throws `invalid-argument` when there is no bootstrap in it or it is too long; what source and tar throw
 */
export async function readBootstrapLayer(
  source: ImageSource,
  layer: Descriptor,
  signal?: AbortSignal,
  wanted: 'everything' | 'bootstrap' = 'everything',
): Promise<BootstrapLayerContent> {
  const options = signal === undefined ? {} : { signal };
  const plain = decompressed(source.blob(layer, options), { maxLength: MAX_BOOTSTRAP_LAYER_LENGTH, ...options });
  const metas = new Map<string, Uint8Array>();
  let bootstrap: Buffer<ArrayBuffer> | undefined;
  for await (const entry of walkTar(plain, options)) {
    if (entry.kind !== 'regular') continue;
    const isBootstrap = entry.path === BOOTSTRAP_PATH || entry.path === OLD_BOOTSTRAP_PATH;
    const id = /^image\/([0-9a-f]{64})\.blob\.meta$/.exec(entry.path)?.[1];
    if (!isBootstrap && id === undefined) continue;
    if (entry.size > MAX_BOOTSTRAP_LENGTH) {
      const fact = `${entry.path} of ${source.name} has ${entry.size} bytes`;
      throw new PantalaError('invalid-argument', `${fact}; at most ${MAX_BOOTSTRAP_LENGTH}`);
    }
    if (!isBootstrap && wanted === 'bootstrap') continue;
    const content = Buffer.alloc(entry.size);
    let at = 0;
    for await (const piece of entry.content()) {
      if (!isHole(piece)) content.set(piece, at);
      at += piece.length;
    }
    if (isBootstrap) bootstrap = content;
    else if (id !== undefined) metas.set(id, content);
  }
  if (bootstrap === undefined)
    throw new PantalaError('invalid-argument', `the bootstrap layer of ${source.name} has no ${BOOTSTRAP_PATH}`);
  return { bootstrap, metas };
}
