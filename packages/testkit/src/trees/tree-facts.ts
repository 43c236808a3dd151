import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type ByteString, PantalaError, shown } from '@pantala/base';

/** What one entry of a tree is, as lstat, readlink and the like say it. */
export interface EntryFacts {
  /** st_mode, octal. */
  readonly mode: string;
  readonly uid: number;
  readonly gid: number;
  /** Nanoseconds since 1970, decimal. */
  readonly mtime: string;
  readonly nlink: number;
  /** Bytes, of regular files and symbolic links. */
  readonly size?: number;
  /** SHA-256 of the content, hex. */
  readonly sha?: string;
  /** Hex. */
  readonly target?: string;
  /** `major:minor`. */
  readonly rdev?: string;
  /** Whole name → hex of the value, or `sha256:<hex>:<bytes>`. */
  readonly xattr?: Readonly<Record<string, string>>;
  /** First path of the hard links that it belongs to. */
  readonly hl?: string;
}

/** Paths relative to the tree's top, which is `.` itself. */
export type TreeFacts = ReadonlyMap<ByteString, EntryFacts>;

/**
 * Reads what a directory, or whatever is mounted on it, holds: independently of Pantala, by a program in Python.
 *
 * @param skipped paths that are left out with all that is below
 */
export async function readTree(directory: string, skipped: readonly string[] = []): Promise<TreeFacts> {
  const program = spawn('python3', [join(import.meta.dirname, 'facts.py'), directory, ...skipped], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  program.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const { promise: ended, resolve, reject } = Promise.withResolvers<number | null>();
  program.once('close', resolve).once('error', reject);
  const facts = new Map<ByteString, EntryFacts>();
  for await (const line of createInterface({ input: program.stdout })) {
    const [path, found] = JSON.parse(line) as [string, EntryFacts];
    facts.set(bytesOfPython(path), inBytes(found));
  }
  if ((await ended) !== 0) {
    throw new PantalaError('failed-precondition', `${directory} cannot be read as a tree:\n${said.slice(-2000)}`);
  }
  return facts;
}

/** The tree as an image of it must be: names outside it, by which its files are known as well, do not count. */
export function withinItself(tree: TreeFacts): TreeFacts {
  const names = new Map<ByteString, number>();
  for (const { hl } of tree.values()) if (hl !== undefined) names.set(hl, (names.get(hl) ?? 0) + 1);
  return new Map(
    Array.from(tree, ([path, facts]) => {
      const { hl, ...others } = facts;
      if (hl === undefined) return [path, facts];
      const nlink = names.get(hl) as number;
      return [path, nlink > 1 ? { ...facts, nlink } : { ...others, nlink }];
    }),
  );
}

/** A tree that was written down as one JSON object, path → facts. */
export function readTreeFile(path: string): TreeFacts {
  // Times in nanoseconds are larger than a number holds.
  const text = readFileSync(path, 'utf8').replace(/"mtime": ?(-?\d+)/g, '"mtime":"$1"');
  const entries = Object.entries(JSON.parse(text) as Record<string, EntryFacts>);
  return new Map(entries.map(([name, facts]) => [bytesOfPython(name), inBytes(facts)]));
}

function inBytes(facts: EntryFacts): EntryFacts {
  return {
    ...facts,
    ...(facts.hl === undefined ? {} : { hl: bytesOfPython(facts.hl) }),
    ...(facts.xattr === undefined
      ? {}
      : {
          xattr: Object.fromEntries(Object.entries(facts.xattr).map(([name, value]) => [bytesOfPython(name), value])),
        }),
  };
}

/** Python's way to have any bytes in a text (PEP 383): what is not UTF-8 stands as U+DC80 to U+DCFF. */
export function bytesOfPython(text: string): ByteString {
  if (/^[\0-\x7f]*$/.test(text)) return text;
  return Array.from(text, (character) => {
    const code = character.charCodeAt(0);
    if (character.length === 1 && code >= 0xdc80 && code <= 0xdcff) return String.fromCharCode(code - 0xdc00);
    return Buffer.from(character, 'utf8').toString('latin1');
  }).join('');
}

export type Fact = keyof EntryFacts;

export interface ComparisonOptions {
  /** Facts that are not compared. */
  readonly without?: readonly Fact[];
  /** Facts that are not compared of one entry. */
  readonly except?: (path: ByteString, facts: EntryFacts) => readonly Fact[];
}

const FACTS: readonly Exclude<Fact, 'xattr'>[] = [
  'mode',
  'uid',
  'gid',
  'mtime',
  'nlink',
  'size',
  'sha',
  'target',
  'rdev',
  'hl',
];

/** Every difference of two trees, a line each; empty when they are the same. */
export function compareTrees(expected: TreeFacts, actual: TreeFacts, options: ComparisonOptions = {}): string[] {
  const differences: string[] = [];
  for (const [path, facts] of expected) {
    const found = actual.get(path);
    if (found === undefined) {
      differences.push(`${shown(path)}: missing`);
      continue;
    }
    const left = new Set([...(options.without ?? []), ...(options.except?.(path, facts) ?? [])]);
    for (const fact of FACTS) {
      if (left.has(fact) || facts[fact] === found[fact]) continue;
      differences.push(`${shown(path)}: ${fact} ${facts[fact]} expected, ${found[fact]} found`);
    }
    if (!left.has('xattr')) differences.push(...xattrDifferences(path, facts.xattr ?? {}, found.xattr ?? {}));
  }
  for (const path of actual.keys()) if (!expected.has(path)) differences.push(`${shown(path)}: not expected`);
  return differences;
}

function xattrDifferences(
  path: ByteString,
  expected: Readonly<Record<string, string>>,
  actual: Readonly<Record<string, string>>,
): string[] {
  const names = new Set([...Object.keys(expected), ...Object.keys(actual)]);
  return [...names]
    .filter((name) => !sameValue(expected[name], actual[name]))
    .map((name) => `${shown(path)}: xattr ${shown(name)} ${expected[name]} expected, ${actual[name]} found`);
}

function sameValue(left: string | undefined, right: string | undefined): boolean {
  if (left === right) return true;
  if (left === undefined || right === undefined) return false;
  return summary(left) === summary(right);
}

function summary(value: string): string {
  if (value.startsWith('sha256:')) return value;
  const bytes = Buffer.from(value, 'hex');
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}:${bytes.length}`;
}
