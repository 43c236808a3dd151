import { matchesGlob } from 'node:path';
import { type ByteString, byteStringOf } from '@pantala/base';
import { type Directory, type Node, nodeAt, walk } from '@pantala/rafs';

/**
 * What is fetched before anybody asks: `fs` names the files in the bootstrap, `blob` puts their data first in the
 * blob, `none` does neither.
 */
export type PrefetchPolicy = 'none' | 'fs' | 'blob';

export interface PrefetchOptions {
  readonly policy: PrefetchPolicy;
  /**
   * Paths from the root, of files or of directories with all below them; `*`, `?`, `[…]` and `**` stand for what they
   * do in a shell. `/` is everything, and the default.
   */
  readonly patterns?: readonly string[];
}

const EVERYTHING = ['/'];
const GLOB = /[*?[\]]/;

/** Patterns that can be matched, without those that are empty. */
function patternsOf({ patterns = EVERYTHING }: PrefetchOptions): ByteString[] {
  const given = patterns.map((pattern) => pattern.trim()).filter((pattern) => pattern !== '');
  return given.map((pattern) => byteStringOf(pattern.startsWith('/') ? pattern : `/${pattern}`));
}

/** The files and directories that patterns name, in the order of the patterns, each once. Names of nothing are left out. */
export function prefetchNodes(root: Directory, options: PrefetchOptions): Node[] {
  if (options.policy !== 'fs') return [];
  const found = new Set<Node>();
  for (const pattern of patternsOf(options)) {
    if (!GLOB.test(pattern)) {
      const node = nodeAt(root, pattern);
      if (node !== undefined) found.add(node);
      continue;
    }
    for (const { path, node } of walk(root)) if (matchesGlob(path, pattern)) found.add(node);
  }
  return [...found];
}

/** The patterns that decide the order of chunks in a blob; undefined when it is that of the source. */
export function blobOrder(options: PrefetchOptions | undefined): readonly ByteString[] | undefined {
  if (options?.policy !== 'blob') return undefined;
  const patterns = patternsOf(options);
  return patterns.length === 0 || patterns[0] === '/' ? undefined : patterns;
}

/**
 * For the policy `blob`: the rank of each file in the blob by its path from the root, which is the number of the first
 * pattern that names it or a directory above it; files that none names come behind. Undefined when the order stays.
 */
export function prefetchRanks(options: PrefetchOptions | undefined): ((path: ByteString) => number) | undefined {
  const patterns = blobOrder(options);
  if (patterns === undefined) return undefined;
  const globs: { readonly pattern: ByteString; readonly rank: number }[] = [];
  const names = new Map<ByteString, number>();
  for (const [rank, pattern] of patterns.entries()) {
    const name = pattern.replace(/\/+$/, '');
    if (GLOB.test(pattern)) globs.push({ pattern, rank });
    else if (!names.has(name)) names.set(name, rank);
  }
  return (path) => {
    let least = patterns.length;
    // The path itself, the directories above it, the root.
    for (let end = path.length; end >= 0; end = end === 0 ? -1 : path.lastIndexOf('/', end - 1)) {
      const part = path.slice(0, end);
      least = Math.min(least, names.get(part) ?? least);
      for (const { pattern, rank } of globs) if (rank < least && end > 0 && matchesGlob(part, pattern)) least = rank;
    }
    return least;
  };
}

/** The same files in the order of their ranks. @param pathOf a file's path from the root, which is `/` */
export function prefetchedFirst<File>(
  files: readonly File[],
  pathOf: (file: File) => ByteString,
  options: PrefetchOptions,
): readonly File[] {
  const rankOf = prefetchRanks(options);
  if (rankOf === undefined) return files;
  const ranked = files.map((file) => ({ file, rank: rankOf(pathOf(file)) }));
  return ranked.sort((a, b) => a.rank - b.rank).map(({ file }) => file);
}
