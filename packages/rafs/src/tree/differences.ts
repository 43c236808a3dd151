import { type ByteString, shown } from '@pantala/base';
import type { Attributes, Directory, Node, RegularFile, Timestamp } from './node.ts';
import { sortedNames, type Visit, walk } from './walk.ts';

export interface Difference {
  /** From the root, which is `/`. */
  readonly path: ByteString;
  /** `missing` is only in the expected tree, `unexpected` only in the actual one. */
  readonly what:
    | 'missing'
    | 'unexpected'
    | 'kind'
    | 'mode'
    | 'uid'
    | 'gid'
    | 'mtime'
    | 'xattr'
    | 'size'
    | 'content'
    | 'target'
    | 'device'
    | 'links';
  /** For people; of `links` the first path of the same file, of `xattr` its name and value. */
  readonly expected: string;
  readonly actual: string;
}

/** Says what is different about the content of two files of the same size, undefined when nothing is. */
export type ContentComparison<Expected, Actual> = (
  expected: RegularFile<Expected>,
  actual: RegularFile<Actual>,
  path: ByteString,
) => { readonly expected: string; readonly actual: string } | undefined;

/**
 * Every difference of two trees, one at a time, in the order of a walk. Of what is missing or unexpected each file is
 * named. Hard links are compared among the names that both trees have.
 *
 * `content` is asked about files of the same size, and not again about hard links that both trees have; who has to
 * wait for bytes notes the pairs and compares them afterwards.
 */
export function* differences<Expected, Actual>(
  expected: Directory<Expected>,
  actual: Directory<Actual>,
  content: ContentComparison<Expected, Actual> = () => undefined,
): Generator<Difference, void, void> {
  const comparison = new Comparison(content);
  comparison.attributes('/', expected, actual);
  yield* comparison.take();
  const open = [{ prefix: '/', expected, actual, names: namesOf(expected, actual).values() }];
  for (let top = open.at(-1); top !== undefined; top = open.at(-1)) {
    const next = top.names.next();
    if (next.done === true) {
      open.pop();
      continue;
    }
    const path = top.prefix + next.value;
    const [left, right] = [top.expected.entries.get(next.value), top.actual.entries.get(next.value)];
    if (!comparison.entry(path, left, right)) {
      yield* comparison.take();
      if (left?.kind === 'directory' && right?.kind !== 'directory') {
        yield* below(path, left).map((each) => missing(each.path, each.node));
      }
      if (right?.kind === 'directory' && left?.kind !== 'directory') {
        yield* below(path, right).map((each) => unexpected(each.path, each.node));
      }
    }
    if (left?.kind === 'directory' && right?.kind === 'directory') {
      const names = namesOf(left, right).values();
      open.push({ prefix: `${path}/`, expected: left, actual: right, names });
    }
  }
}

function namesOf<Expected, Actual>(expected: Directory<Expected>, actual: Directory<Actual>): ByteString[] {
  const names = sortedNames(expected);
  const more = sortedNames(actual).filter((name) => !expected.entries.has(name));
  return more.length === 0 ? names : [...names, ...more].sort();
}

/** Gathers what is different about one name at a time: most often nothing. */
class Comparison<Expected, Actual> {
  readonly #content: ContentComparison<Expected, Actual>;
  #found: Difference[] = [];
  /** The first path of each file in either tree, of those that both have. */
  readonly #expectedPaths = new Map<Node<Expected>, ByteString>();
  readonly #actualPaths = new Map<Node<Actual>, ByteString>();

  constructor(content: ContentComparison<Expected, Actual>) {
    this.#content = content;
  }

  take(): Difference[] {
    const found = this.#found;
    this.#found = [];
    return found;
  }

  /** Whether nothing is different; what a directory holds is for the caller. */
  entry(path: ByteString, expected: Node<Expected> | undefined, actual: Node<Actual> | undefined): boolean {
    if (expected === undefined || actual === undefined || expected.kind !== actual.kind) {
      if (expected !== undefined && actual !== undefined) {
        this.#found.push({ path, what: 'kind', expected: expected.kind, actual: actual.kind });
      } else if (expected !== undefined) this.#found.push(missing(path, expected));
      else if (actual !== undefined) this.#found.push(unexpected(path, actual));
      return false;
    }
    if (expected.kind === 'directory' || this.#areNewPair(path, expected, actual)) {
      this.attributes(path, expected, actual);
      this.#rest(path, expected, actual);
    }
    return this.#found.length === 0;
  }

  /** Compares hard links; what is wrong with a file is said once, however many names it has. */
  #areNewPair(path: ByteString, expected: Node<Expected>, actual: Node<Actual>): boolean {
    const left = firstPath(this.#expectedPaths, expected, path);
    const right = firstPath(this.#actualPaths, actual, path);
    if (left !== right) this.#found.push({ path, what: 'links', expected: shown(left), actual: shown(right) });
    return left !== right || left === path;
  }

  attributes(path: ByteString, expected: Node<Expected>, actual: Node<Actual>): void {
    const [left, right] = [expected.attributes, actual.attributes];
    if (left === right) return;
    if (left.mode !== right.mode) {
      this.#found.push({ path, what: 'mode', expected: left.mode.toString(8), actual: right.mode.toString(8) });
    }
    for (const what of ['uid', 'gid'] as const) {
      if (left[what] === right[what]) continue;
      this.#found.push({ path, what, expected: String(left[what]), actual: String(right[what]) });
    }
    if (left.mtime.seconds !== right.mtime.seconds || left.mtime.nanoseconds !== right.mtime.nanoseconds) {
      this.#found.push({ path, what: 'mtime', expected: shownTime(left.mtime), actual: shownTime(right.mtime) });
    }
    if (left.xattrs.size > 0 || right.xattrs.size > 0) this.#found.push(...xattrDifferences(path, left, right));
  }

  #rest(path: ByteString, expected: Node<Expected>, actual: Node<Actual>): void {
    if (expected.kind === 'regular' && actual.kind === 'regular') {
      if (expected.size !== actual.size) {
        this.#found.push({ path, what: 'size', expected: String(expected.size), actual: String(actual.size) });
        return;
      }
      const found = this.#content(expected, actual, path);
      if (found !== undefined) this.#found.push({ path, what: 'content', ...found });
    }
    if (expected.kind === 'symlink' && actual.kind === 'symlink' && expected.target !== actual.target) {
      this.#found.push({ path, what: 'target', expected: shown(expected.target), actual: shown(actual.target) });
    }
    if ('major' in expected && 'major' in actual) {
      const [left, right] = [`${expected.major}:${expected.minor}`, `${actual.major}:${actual.minor}`];
      if (left !== right) this.#found.push({ path, what: 'device', expected: left, actual: right });
    }
  }
}

function firstPath<Content>(paths: Map<Node<Content>, ByteString>, node: Node<Content>, path: ByteString): ByteString {
  const known = paths.get(node);
  if (known === undefined) paths.set(node, path);
  return known ?? path;
}

function* xattrDifferences(path: ByteString, left: Attributes, right: Attributes): Generator<Difference, void, void> {
  for (const name of [...new Set([...left.xattrs.keys(), ...right.xattrs.keys()])].sort()) {
    const [expected, actual] = [left.xattrs.get(name), right.xattrs.get(name)];
    if (expected !== undefined && actual !== undefined && Buffer.compare(expected, actual) === 0) continue;
    yield { path, what: 'xattr', expected: shownXattr(name, expected), actual: shownXattr(name, actual) };
  }
}

const SHOWN_VALUE = 32;

function shownXattr(name: ByteString, value: Uint8Array | undefined): string {
  if (value === undefined) return `no ${shown(name)}`;
  const hex = Buffer.from(value.subarray(0, SHOWN_VALUE)).toString('hex');
  const rest = value.length > SHOWN_VALUE ? `… (${value.length} bytes)` : '';
  return `${shown(name)}=0x${hex}${rest}`;
}

function shownTime({ seconds, nanoseconds }: Timestamp): string {
  return `${seconds} s ${nanoseconds} ns`;
}

function missing<Content>(path: ByteString, node: Node<Content>): Difference {
  return { path, what: 'missing', expected: node.kind, actual: 'nothing' };
}

function unexpected<Content>(path: ByteString, node: Node<Content>): Difference {
  return { path, what: 'unexpected', expected: 'nothing', actual: node.kind };
}

/** All that a directory holds at any depth. */
function below<Content>(path: ByteString, directory: Directory<Content>): IteratorObject<Visit<Content>> {
  return walk(directory, path).drop(1);
}
