import { readFileSync, statSync } from 'node:fs';
import { PantalaError } from '@pantala/base';
import { type Alias, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml';

/** Bytes of a configuration file. The largest chart values in use are a tenth of it. */
export const MAX_CONFIG_BYTES = 1024 * 1024;
/** Levels of nesting. Upstream's deepest key has eight. */
export const MAX_CONFIG_DEPTH = 32;
/** Nodes read from one file, aliases counted each time: aliases of aliases would otherwise multiply without end. */
export const MAX_CONFIG_NODES = 50_000;
/** Unclosed brackets in the text. The parser recurses at each, and takes seconds to exhaust its stack. */
const MAX_BRACKET_DEPTH = 1000;
/** Problems shown at once; who has more has the wrong file. */
const MAX_PROBLEMS_SHOWN = 20;

/** A place in a file; line 0 stands for the whole file. */
export interface Place {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

interface Remark {
  readonly place: Place;
  readonly text: string;
}

/** What went wrong or is worth knowing, as `FILE:LINE:COLUMN: text`, in the order of the file. */
export class ConfigReport {
  readonly #problems: Remark[] = [];
  readonly #warnings: Remark[] = [];

  get problems(): string[] {
    return inOrder(this.#problems);
  }

  get warnings(): string[] {
    return inOrder(this.#warnings);
  }

  problem(place: Place, text: string): void {
    this.#problems.push({ place, text });
  }

  warning(place: Place, text: string): void {
    this.#warnings.push({ place, text });
  }

  /** @throws `failed-precondition` naming every problem found. */
  throwIfBad(): void {
    const { problems } = this;
    if (problems.length === 0) return;
    const shown = problems.slice(0, MAX_PROBLEMS_SHOWN);
    if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`);
    throw new PantalaError('failed-precondition', shown.join('\n'));
  }
}

function inOrder(remarks: readonly Remark[]): string[] {
  return remarks
    .toSorted(({ place: a }, { place: b }) => a.file.localeCompare(b.file) || a.line - b.line || a.column - b.column)
    .map(({ place, text }) => `${formatPlace(place)}: ${text}`);
}

function formatPlace({ file, line, column }: Place): string {
  return line === 0 ? file : `${file}:${line}:${column}`;
}

interface Source {
  readonly name: string;
  readonly lines: LineCounter;
  readonly resolve: (alias: Alias) => Node | undefined;
  readonly report: ConfigReport;
  nodesLeft: number;
}

/** A place in a configuration file, or the absence of one: decoders turn it into options. */
export class ConfigNode {
  readonly #source: Source;
  readonly #node: Node | undefined;
  /** Keys from the root, joined with dots; empty for the root. */
  readonly path: string;
  readonly #depth: number;

  constructor(source: Source, node: Node | undefined, path: string, depth: number) {
    this.#source = source;
    this.path = path;
    this.#depth = depth;
    this.#node = this.#admit(node);
  }

  #admit(node: Node | undefined): Node | undefined {
    let target: Node | undefined = node;
    if (isAlias(target)) target = this.#source.resolve(target);
    this.#source.nodesLeft--;
    if (this.#source.nodesLeft < 0 || this.#depth > MAX_CONFIG_DEPTH) {
      throw new PantalaError(
        'failed-precondition',
        `${this.#source.name}: more than ${MAX_CONFIG_NODES} values or ${MAX_CONFIG_DEPTH} levels; is it a configuration file?`,
      );
    }
    return target;
  }

  /** True where the file has no such key, or the key has no value (`key:` or `key: null`). */
  get absent(): boolean {
    return this.#node === undefined || (isScalar(this.#node) && this.#node.value === null);
  }

  get scalar(): string | number | boolean | undefined {
    if (!isScalar(this.#node)) return undefined;
    const value = this.#node.value;
    return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? value : undefined;
  }

  /** A scalar as it is written, so that `007` or `1e3` stays what it was. */
  get text(): string | undefined {
    if (!isScalar(this.#node) || this.#node.value === null) return undefined;
    return typeof this.#node.value === 'string' ? this.#node.value : (this.#node.source ?? String(this.scalar));
  }

  /** Keys with their values, in order; undefined when this is no mapping. */
  get entries(): { readonly key: string; readonly at: Place; readonly value: ConfigNode }[] | undefined {
    const node = this.#node;
    if (!isMap(node)) return undefined;
    return node.items.map((pair) => {
      const key = isScalar(pair.key) ? String(pair.key.value) : String(pair.key);
      return {
        key,
        at: this.#place(pair.key as Node),
        value: this.#child(pair.value as Node | undefined, this.path === '' ? key : `${this.path}.${key}`),
      };
    });
  }

  get items(): ConfigNode[] | undefined {
    if (!isSeq(this.#node)) return undefined;
    return this.#node.items.map((item, index) => this.#child(item as Node, `${this.path}[${index}]`));
  }

  /** A node for a key that the file does not have. */
  missing(key: string): ConfigNode {
    return this.#child(undefined, this.path === '' ? key : `${this.path}.${key}`);
  }

  /** Another file that this one names; its remarks go to the same report. @throws as readConfig */
  other(path: string): ConfigNode {
    return readConfig(path, this.#source.report);
  }

  problem(text: string, at = this.#place(this.#node)): void {
    this.#source.report.problem(at, text);
  }

  warning(text: string, at = this.#place(this.#node)): void {
    this.#source.report.warning(at, text);
  }

  #child(node: Node | undefined, path: string): ConfigNode {
    return new ConfigNode(this.#source, node, path, this.#depth + 1);
  }

  #place(node: Node | undefined): Place {
    const { name, lines } = this.#source;
    const offset = node?.range?.[0];
    if (offset === undefined) return { file: name, line: 0, column: 0 };
    const { line, col } = lines.linePos(offset);
    return { file: name, line, column: col };
  }
}

/**
 * Parses YAML (or JSON, which is part of it).
 *
 * @param name stands before line and column in messages
 * @throws `failed-precondition` for text that is too long or no YAML, with line and column
 */
export function parseConfig(text: string, name: string, report: ConfigReport): ConfigNode {
  if (Buffer.byteLength(text) > MAX_CONFIG_BYTES) throw tooLong(name);
  const lines = new LineCounter();
  const document = parse(text, name, lines);
  const [error] = document.errors;
  if (error !== undefined) {
    const { line, col } = lines.linePos(error.pos[0]);
    const [summary = 'not YAML'] = error.message.split(' at line ');
    throw new PantalaError('failed-precondition', `${name}:${line}:${col}: ${summary}`);
  }
  const resolve = (alias: Alias) => alias.resolve(document);
  return rootNode((document.contents as Node | null) ?? undefined, { name, lines, report, resolve });
}

/** The root of a document that was read in whatever way, with places by `lines`. */
export function rootNode(
  contents: Node | undefined,
  source: Pick<Source, 'name' | 'lines' | 'report'> & Partial<Pick<Source, 'resolve'>>,
): ConfigNode {
  return new ConfigNode({ resolve: () => undefined, ...source, nodesLeft: MAX_CONFIG_NODES }, contents, '', 0);
}

function parse(text: string, name: string, lines: LineCounter): ReturnType<typeof parseDocument> {
  if (bracketDepth(text) > MAX_BRACKET_DEPTH)
    throw new PantalaError('failed-precondition', `${name}: too deeply nested`);
  try {
    return parseDocument(text, { lineCounter: lines, prettyErrors: true });
  } catch (error) {
    // Deep indentation may still exhaust the stack of the parser, which recurses.
    throw new PantalaError('failed-precondition', `${name}: cannot be parsed as YAML`, { cause: error });
  }
}

/** Open brackets at most, wherever they stand (in quotes too). */
function bracketDepth(text: string): number {
  let depth = 0;
  let deepest = 0;
  for (const [bracket] of text.matchAll(/[[\]{}]/g)) {
    depth = bracket === '[' || bracket === '{' ? depth + 1 : Math.max(0, depth - 1);
    deepest = Math.max(deepest, depth);
  }
  return deepest;
}

/** @throws `not-found` and `permission-denied` with what to do; else as parseConfig. */
export function readConfig(path: string, report: ConfigReport): ConfigNode {
  return parseConfig(readConfigText(path), path, report);
}

/** The text of a configuration file of any kind. @throws as readConfig */
export function readConfigText(path: string): string {
  try {
    if (statSync(path).size > MAX_CONFIG_BYTES) throw tooLong(path);
    return readFileSync(path, 'utf8');
  } catch (error) {
    const cause = PantalaError.from(error);
    throw new PantalaError(cause.code, `cannot read the configuration file ${path}: ${cause.message}`, { cause });
  }
}

export function tooLong(name: string): PantalaError {
  return new PantalaError(
    'failed-precondition',
    `${name} is longer than ${MAX_CONFIG_BYTES} bytes; is it the right file?`,
  );
}
