import { PantalaError, throwIfAborted } from '@pantala/base';
import { decompressed, walkTar } from '@pantala/oci';
import { type Directory, type FileChunks, mergeTrees } from '@pantala/rafs';
import { readDirectorySource } from '../build/directory-source.ts';
import type { FileOnDisk } from '../build/file-on-disk.ts';
import { adoptAttributes, type TreeLayer } from '../images/implied-directories.ts';
import { TarTree, type TarTreeResult } from '../sources/tar-tree.ts';
import { FileContent } from '../stored/file-content.ts';
import type { ImageBlobs } from '../stored/image-blobs.ts';
import { ContentDigester, type DigestRule } from './content-digester.ts';
import type { SourceTree } from './differences.ts';

/** A tar with the digests of what is in it, read once as it streams by; plain, gzip or zstd. */
export async function tarSourceTree(
  tar: AsyncIterable<Uint8Array>,
  rule: DigestRule,
  signal?: AbortSignal,
): Promise<SourceTree<readonly Uint8Array[]>> {
  const { root } = await tarTree(tar, rule, false, signal);
  return { root, digests: async ({ content }) => content };
}

async function tarTree(
  tar: AsyncIterable<Uint8Array>,
  rule: DigestRule,
  isLayer: boolean,
  signal: AbortSignal | undefined,
): Promise<TarTreeResult<readonly Uint8Array[]>> {
  const tree = new TarTree<readonly Uint8Array[]>();
  const digester = new ContentDigester(rule, signal);
  const stop = signal === undefined ? {} : { signal };
  for await (const member of walkTar(decompressed(tar, { ...stop, frees: true }), stop)) {
    if (member.kind === 'regular') tree.addFile(member, await digester.ofPieces(member.content()));
    else tree.add(member);
  }
  return tree.finish(isLayer);
}

/**
 * The layers of a container image, the lowest first, as if they had been unpacked one over the other; each is read
 * once as it streams by.
 */
export async function layeredSourceTree(
  layers: readonly AsyncIterable<Uint8Array>[],
  rule: DigestRule,
  signal?: AbortSignal,
): Promise<SourceTree<readonly Uint8Array[]>> {
  const read: TreeLayer<readonly Uint8Array[]>[] = [];
  for (const layer of layers) {
    const { root, implied } = await tarTree(layer, rule, true, signal);
    read.push({ image: { root }, implied });
  }
  adoptAttributes(read);
  let merged: Directory<readonly Uint8Array[]> | undefined;
  for (const { image } of read) merged = mergeTrees(merged, image.root);
  if (merged === undefined) throw new PantalaError('invalid-argument', 'an image without layers shows nothing');
  return { root: merged, digests: async ({ content }) => content };
}

/** A directory, whose files are read and digested when they are compared. */
export async function directorySourceTree(
  directory: string,
  rule: DigestRule,
  signal?: AbortSignal,
): Promise<SourceTree<FileChunks>> {
  const { root, files } = await readDirectorySource(directory, rule.chunkSize, signal);
  // A file of the tree has the list that its source was noted with.
  const sources = new Map<FileChunks, FileOnDisk>(files.map((file) => [file.chunks, file]));
  const digester = new ContentDigester(rule, signal);
  return {
    root,
    digests: async ({ content }) => {
      const file = sources.get(content);
      if (file === undefined) return [];
      throwIfAborted(signal);
      return await digester.ofFile(file);
    },
  };
}

/** Another image: by its own digests where they are of the same kind, else by its content. */
export function imageSourceTree(blobs: ImageBlobs, rule: DigestRule, signal?: AbortSignal): SourceTree<FileChunks> {
  const { root, digester, chunkSize } = blobs.image;
  const isAlike = digester === rule.digester && chunkSize === rule.chunkSize;
  const content = new FileContent(blobs, signal);
  const contents = new ContentDigester(rule, signal);
  return {
    root,
    digests: async (file) =>
      isAlike ? file.content.map(({ digest }) => digest) : contents.ofPieces(content.read(file)),
  };
}
