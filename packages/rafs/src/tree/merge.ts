import { type ByteString, PantalaError, shown } from '@pantala/base';
import { BLOB_FEATURES, type BlobInfo, type Chunk, type RafsImage, sameChunk } from '../image.ts';
import { linkedFile, targetBelow } from './link-below.ts';
import type { Directory, FileChunks, Node, RegularFile } from './node.ts';
import { sortedNames } from './walk.ts';
import { hiddenBy, isWhiteout, type WhiteoutSpec, withoutMarks } from './whiteout.ts';

/**
 * The tree that `upper` makes of `lower`, without any whiteout: what it hides is gone, its files replace others of
 * the same name, directories are joined and have the upper one's attributes, also at the root. What one layer both
 * hides and has is only what it has. Without `lower` only the whiteouts go.
 *
 * Files, and directories of `lower` that `upper` does not touch, are those of the arguments: hard links stay. Where
 * `upper` has a mark of `linkBelow`, the file of `lower` gets another name, also when `upper` hides or replaces its own.
 *
 * @throws `invalid-argument` when there is no such file, naming both
 */
export function mergeTrees<Content>(
  lower: Directory<Content> | undefined,
  upper: Directory<Content>,
  spec: WhiteoutSpec = 'oci',
): Directory<Content> {
  const top = emptied(upper, spec);
  const open = [{ path: '', target: top, lower, upper }];
  for (let step = open.pop(); step !== undefined; step = open.pop()) {
    const hidden = hiddenBy(step.upper, spec);
    const { entries } = step.target;
    if (step.lower !== undefined && !hidden.everything) {
      for (const [name, node] of step.lower.entries) if (!hidden.names.has(name)) entries.set(name, node);
    }
    for (const [name, node] of step.upper.entries) {
      if (isWhiteout(name, node, spec)) continue;
      if (node.kind !== 'directory') {
        entries.set(name, linked(lower, node, step.path + name));
        continue;
      }
      const below = entries.get(name);
      const target = emptied(node, spec);
      entries.set(name, target);
      open.push({
        path: `${step.path}${name}/`,
        target,
        lower: below?.kind === 'directory' ? below : undefined,
        upper: node,
      });
    }
  }
  return top;
}

/** @param path of `node` */
function linked<Content>(
  lower: Directory<Content> | undefined,
  node: Exclude<Node<Content>, Directory<Content>>,
  path: ByteString,
): Node<Content> {
  const target = targetBelow(node);
  if (target === undefined) return node;
  const found = lower && linkedFile(lower, target);
  if (found !== undefined) return found;
  const fact = `"${shown(path)}" is a hard link to "${shown(target)}", which is no file of its layer or of one below it`;
  throw new PantalaError('invalid-argument', fact);
}

function emptied<Content>(directory: Directory<Content>, spec: WhiteoutSpec): Directory<Content> {
  return { kind: 'directory', attributes: withoutMarks(directory.attributes, spec), entries: new Map() };
}

export interface MergeOptions {
  /** `oci` without it. */
  readonly whiteouts?: WhiteoutSpec;
}

/**
 * One image of several, the lowest first. Blobs of which no file is left are gone, the others are numbered in the
 * order in which files of a walk by levels need them; a blob that several layers name, as that of a chunk dictionary,
 * stands there once. What is to be prefetched is the caller's choice: the list is empty.
 *
 * @throws `invalid-argument` without a layer and as `mergeTrees`, `failed-precondition` when layers do not fit together or a blob has no
 * id yet
 */
export function mergeLayers(layers: readonly RafsImage[], options: MergeOptions = {}): RafsImage {
  const [first, ...others] = layers;
  if (first === undefined) throw new PantalaError('invalid-argument', 'there is no layer to merge');
  for (const layer of others) checkSame(first, layer);
  const spec = options.whiteouts ?? 'oci';
  let root: Directory | undefined;
  const merging = new Renumbering();
  for (const layer of layers) {
    merging.add(layer);
    root = mergeTrees(root, layer.root, spec);
  }
  const top = merging.tree(root as Directory);
  return { ...(layers.at(-1) as RafsImage), root: top, blobs: merging.blobs, prefetch: [] };
}

function checkSame(first: RafsImage, layer: RafsImage): void {
  for (const field of ['chunkSize', 'blockSize', 'explicitIds'] as const) {
    if (first[field] === layer[field]) continue;
    const fact = `layers do not fit together: ${field} is ${first[field]} in one and ${layer[field]} in another`;
    throw new PantalaError('failed-precondition', fact);
  }
}

/** A layer, and the new number of each of its blobs that has one already. */
interface Numbered {
  readonly layer: RafsImage;
  readonly numbers: (number | undefined)[];
}

/** Copies a tree with the blobs of its layers numbered anew. */
class Renumbering {
  readonly blobs: BlobInfo[] = [];
  readonly #numbers = new Map<string, number>();
  /** In which layer's blobs the chunks of a file are; once it is copied, the copy. */
  readonly #files = new Map<Node, Numbered | RegularFile>();
  /** By new blob and index: layers that share a blob share its chunks. */
  readonly #chunks: Map<number, Chunk>[] = [];

  add(layer: RafsImage): void {
    const numbered: Numbered = { layer, numbers: layer.blobs.map(() => undefined) };
    const open = [layer.root];
    for (let directory = open.pop(); directory !== undefined; directory = open.pop()) {
      for (const node of directory.entries.values()) {
        if (node.kind === 'directory') open.push(node);
        else if (node.kind === 'regular' && node.content.length > 0) this.#files.set(node, numbered);
      }
    }
  }

  tree(root: Directory): Directory {
    const top: Directory = { ...root, entries: new Map() };
    const queue = [{ from: root, to: top }];
    for (let next = 0; next < queue.length; next++) {
      const { from, to } = queue[next] as (typeof queue)[number];
      for (const name of sortedNames(from)) this.#copy(name, from.entries.get(name) as Node, to, queue);
    }
    return top;
  }

  #copy(name: ByteString, node: Node, to: Directory, queue: { from: Directory; to: Directory }[]): void {
    if (node.kind === 'directory') {
      const copy: Directory = { ...node, entries: new Map() };
      to.entries.set(name, copy);
      queue.push({ from: node, to: copy });
      return;
    }
    to.entries.set(name, node.kind === 'regular' ? this.#file(node) : node);
  }

  #file(file: RegularFile): RegularFile {
    const known = this.#files.get(file);
    if (known === undefined) return file;
    if ('kind' in known) return known;
    const content: FileChunks = file.content.map((chunk) => this.#chunk(chunk, known));
    const copy = { ...file, content };
    this.#files.set(file, copy);
    return copy;
  }

  #chunk(chunk: Chunk, { layer, numbers }: Numbered): Chunk {
    let blobIndex = numbers[chunk.blobIndex];
    if (blobIndex === undefined) {
      blobIndex = this.#number(layer.blobs[chunk.blobIndex]);
      numbers[chunk.blobIndex] = blobIndex;
    }
    const chunks = this.#chunks[blobIndex] as Map<number, Chunk>;
    const known = chunks.get(chunk.index);
    if (known === undefined) {
      const renumbered = chunk.blobIndex === blobIndex ? chunk : { ...chunk, blobIndex };
      chunks.set(chunk.index, renumbered);
      return renumbered;
    }
    if (!sameChunk(known, chunk)) {
      const fact = `layers do not agree on chunk ${chunk.index} of blob ${this.blobs[blobIndex]?.id}`;
      throw new PantalaError('failed-precondition', fact);
    }
    return known;
  }

  #number(blob: BlobInfo | undefined): number {
    if (blob === undefined) throw new PantalaError('invalid-argument', 'a file of a layer has a chunk in no blob');
    const known = this.#numbers.get(blob.id);
    if (known !== undefined) {
      checkSameBlob(this.blobs[known] as BlobInfo, blob);
      return known;
    }
    if (!/^[0-9a-f]{64}$/.test(blob.id)) {
      const fact = `a layer's blob is called ${blob.id}: give it the digest that it is stored under before merging`;
      throw new PantalaError('failed-precondition', fact);
    }
    const number = this.blobs.length;
    this.#numbers.set(blob.id, number);
    this.#chunks.push(new Map());
    // The stored blob may hold its layer's bootstrap, but not the merged image's.
    this.blobs.push({ ...blob, features: withoutFeature(blob.features, BLOB_FEATURES.inlinedBootstrap) });
    return number;
  }
}

function withoutFeature(features: number, feature: number): number {
  return (features & ~feature) >>> 0;
}

function checkSameBlob(first: BlobInfo, other: BlobInfo): void {
  for (const field of ['chunkCount', 'compressor', 'digester', 'uncompressedSize'] as const) {
    if (first[field] === other[field]) continue;
    const fact = `layers do not agree on blob ${first.id}: ${field} is ${first[field]} in one and ${other[field]} in another`;
    throw new PantalaError('failed-precondition', fact);
  }
}
