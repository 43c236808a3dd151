import type { ByteString } from '@pantala/base';
import { type Node, nodeAt, type RafsImage, sortedNames } from '@pantala/rafs';

/** A part of a decoded blob. */
export interface PlannedRange {
  /** Of the image's blobs. */
  readonly blob: number;
  readonly start: number;
  readonly end: number;
}

/** What of an image is fetched before it is asked for, in this order. */
export interface PrefetchPlan {
  /** What the image itself names. */
  readonly ofImage: readonly PlannedRange[];
  /** What was named at the mount. */
  readonly ofMount: readonly PlannedRange[];
  /** Whether the image or the mount names its root: everything is wanted then, in no special order. */
  readonly everything: boolean;
  /** Names that the image does not have. */
  readonly missing: readonly ByteString[];
}

/** Bytes that a range has at most: one is fetched as a whole, and readers go between two. */
const MAX_RANGE = 4 * 1024 * 1024;

/** @param files paths in the image, directories stand for all that they hold */
export function planPrefetch(image: RafsImage, files: readonly ByteString[] = []): PrefetchPlan {
  const named: Node[] = [];
  const missing: ByteString[] = [];
  for (const path of files) {
    const node = nodeAt(image.root, path);
    if (node === undefined) missing.push(path);
    else named.push(node);
  }
  const isRoot = (node: Node) => node === image.root;
  // Files with several names, and what both lists have, are fetched once.
  const seen = new Set<Node>();
  return {
    ofImage: rangesOf(
      image.prefetch.filter((node) => !isRoot(node)),
      seen,
    ),
    ofMount: rangesOf(
      named.filter((node) => !isRoot(node)),
      seen,
    ),
    everything: image.prefetch.some(isRoot) || named.some(isRoot),
    missing,
  };
}

function rangesOf(nodes: readonly Node[], seen: Set<Node>): PlannedRange[] {
  const ranges: { blob: number; start: number; end: number }[] = [];
  const waiting = nodes.toReversed();
  for (let node = waiting.pop(); node !== undefined; node = waiting.pop()) {
    if (seen.has(node)) continue;
    seen.add(node);
    if (node.kind === 'directory') {
      const { entries } = node;
      for (const name of sortedNames(node).reverse()) waiting.push(entries.get(name) as Node);
    } else if (node.kind === 'regular') {
      for (const { blobIndex: blob, uncompressedOffset: start, uncompressedSize } of node.content) {
        const end = start + uncompressedSize;
        const last = ranges.at(-1);
        const follows = last?.blob === blob && start >= last.end && start - last.end < 4096;
        if (last !== undefined && follows && end - last.start <= MAX_RANGE) last.end = end;
        else ranges.push({ blob, start, end });
      }
    }
  }
  return ranges;
}
