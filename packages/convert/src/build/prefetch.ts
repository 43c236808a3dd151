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

/**
 * The same files, those that patterns name first, in the order of the patterns.
 *
 * @param pathOf a file's path from the root, which is `/`
 */
export function prefetchedFirst<File>(
  files: readonly File[],
  pathOf: (file: File) => ByteString,
  options: PrefetchOptions,
): readonly File[] {
  if (options.policy !== 'blob') return files;
  const rest = new Set(files);
  const first: File[] = [];
  for (const pattern of patternsOf(options)) {
    for (const file of rest) {
      if (!matches(pathOf(file), pattern)) continue;
      first.push(file);
      rest.delete(file);
    }
  }
  return [...first, ...rest];
}

/** Whether a pattern names a file or a directory above it. */
function matches(path: ByteString, pattern: ByteString): boolean {
  if (pattern === '/') return true;
  if (!GLOB.test(pattern)) {
    const folder = pattern.endsWith('/') ? pattern : `${pattern}/`;
    return path === pattern || path.startsWith(folder);
  }
  for (let end = path.length; end > 0; end = path.lastIndexOf('/', end - 1)) {
    if (matchesGlob(path.slice(0, end), pattern)) return true;
  }
  return false;
}
