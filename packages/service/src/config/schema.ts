import type { ConfigNode } from './document.ts';
import { nearest } from './nearest.ts';
import { parseDuration, parseSize } from './units.ts';

/**
 * Turns a place in a file into an option. A wrong value is reported with its place and stands for the default, so
 * that one run shows every mistake; the report decides in the end.
 */
export interface Decoder<T> {
  decode(node: ConfigNode): T;
}

export type Decoded<D> = D extends Decoder<infer T> ? T : never;

type Shape = Readonly<Record<string, Decoder<unknown>>>;

export interface SectionOptions {
  /** Keys that upstream has or had but that mean nothing here, with the reason. Nothing below them is looked at. */
  readonly unused?: Readonly<Record<string, string>>;
}

/** A mapping with known keys. A missing one is as good as an empty one. */
export interface Section<S extends Shape> extends Decoder<{ readonly [K in keyof S]: Decoded<S[K]> }> {
  readonly shape: S;
  readonly unused: Readonly<Record<string, string>>;
}

export function section<S extends Shape>(shape: S, options: SectionOptions = {}): Section<S> {
  const unused = options.unused ?? {};
  return {
    shape,
    unused,
    decode(node) {
      const found = new Map<string, ConfigNode>();
      if (!node.absent && node.entries === undefined)
        node.problem(`${label(node)} must be a mapping of keys to values`);
      for (const { key, at, value } of node.entries ?? []) {
        if (Object.hasOwn(shape, key)) found.set(key, value);
        else if (Object.hasOwn(unused, key)) value.warning(`${value.path} has no effect: ${unused[key]}`, at);
        else value.problem(unknownKey(value.path, key, [...Object.keys(shape), ...Object.keys(unused)]), at);
      }
      const decoded: Record<string, unknown> = {};
      for (const [key, decoder] of Object.entries(shape)) {
        decoded[key] = decoder.decode(found.get(key) ?? node.missing(key));
      }
      return decoded as { [K in keyof S]: Decoded<S[K]> };
    },
  };
}

/** A section that is only there when the file has it. */
export function optionalSection<S extends Shape>(
  shape: S,
  options: SectionOptions = {},
): Decoder<Decoded<Section<S>> | undefined> {
  const inner = section(shape, options);
  return { ...inner, decode: (node) => (node.absent ? undefined : inner.decode(node)) };
}

function unknownKey(path: string, key: string, known: readonly string[]): string {
  const meant = nearest(key, known);
  const hint =
    meant === undefined
      ? `known here: ${known.toSorted().slice(0, 30).join(', ')}`
      : `the nearest known key is "${meant}"`;
  return `unknown key "${path}"; ${hint}`;
}

function label(node: ConfigNode): string {
  return node.path === '' ? 'the file' : node.path;
}

/** Builds a decoder of single values with an optional default. */
function value<T>(expected: string, read: (node: ConfigNode) => T | undefined) {
  function decoder(): Decoder<T | undefined>;
  function decoder(fallback: T): Decoder<T>;
  function decoder(fallback?: T): Decoder<T | undefined> {
    return {
      decode(node) {
        if (node.absent) return fallback;
        const result = read(node);
        if (result === undefined) node.problem(`${label(node)} must be ${expected}, not ${shown(node)}`);
        return result ?? fallback;
      },
    };
  }
  return decoder;
}

/** What stands there, short enough for a message. Never the value of a key that names a secret. */
function shown(node: ConfigNode): string {
  if (/password|secret|token|key$/i.test(node.path)) return 'what is there';
  if (node.text === undefined) return node.items === undefined ? 'a mapping' : 'a list';
  return JSON.stringify(node.text.slice(0, 60));
}

export const text = value('a text', (node) => node.text);
export const flag = value('true or false', (node) => {
  if (typeof node.scalar === 'boolean') return node.scalar;
  return node.scalar === 'true' ? true : node.scalar === 'false' ? false : undefined;
});
/** Milliseconds. */
export const duration = value('a duration such as 30s or 1h30m', (node) =>
  node.text === undefined ? undefined : parseDuration(node.text),
);
/** Bytes; as a rate, bytes per second. */
export const size = value('a size such as 64MiB or 10GB', (node) =>
  node.text === undefined ? undefined : parseSize(node.text),
);
export const port = value('a port from 0 to 65535', (node) => wholeNumber(node, 0, 65_535));
export const count = value('a whole number of 0 or more', (node) => wholeNumber(node, 0, Number.MAX_SAFE_INTEGER));
export const wholeInteger = value('a whole number', (node) =>
  wholeNumber(node, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER),
);
export const percent = value('a percentage from 0 to 100', (node) => {
  const number = Number(node.text);
  return node.text !== undefined && number >= 0 && number <= 100 ? number : undefined;
});
/** `HOST:PORT`, with or without a scheme in front (upstream writes both). */
export const address = value('an address such as 10.0.0.1:8002', (node) => {
  const match = /^(?:[a-z]+:\/\/)?(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):(\d{1,5})\/?$/.exec(node.text ?? '');
  if (match === null || Number(match[2]) > 65_535) return undefined;
  return { host: (match[1] as string).replace(/^\[|\]$/g, ''), port: Number(match[2]) };
});

function wholeNumber(node: ConfigNode, least: number, most: number): number | undefined {
  const text = node.text;
  if (text === undefined || !/^-?\d{1,16}$/.test(text)) return undefined;
  const number = Number(text);
  return number >= least && number <= most ? number : undefined;
}

/** One of the given words. */
export function choice<const W extends readonly string[]>(words: W, fallback: W[number]): Decoder<W[number]> {
  return value(`one of ${words.join(', ')}`, (node) => words.find((word) => word === node.text))(fallback);
}

/** A switch that has one position here; the other gives a warning with the reason. */
export function always(position: boolean, reason: string): Decoder<boolean> {
  const inner = flag(position);
  return {
    decode(node) {
      if (inner.decode(node) !== position) node.warning(`${node.path}: ${!position} has no effect: ${reason}`);
      return position;
    },
  };
}

/** A list; a missing one is empty. */
export function list<T>(item: Decoder<T>): Decoder<readonly NonNullable<T>[]> {
  return {
    decode(node) {
      if (node.absent) return [];
      if (node.items === undefined) node.problem(`${label(node)} must be a list`);
      return (node.items ?? [])
        .map((element) => item.decode(element))
        .filter((element) => element !== undefined && element !== null);
    },
  };
}

/** A mapping with free keys. */
export function dictionary<T>(item: Decoder<T>): Decoder<Readonly<Record<string, NonNullable<T>>>> {
  return {
    decode(node) {
      if (!node.absent && node.entries === undefined) node.problem(`${label(node)} must be a mapping`);
      const decoded = (node.entries ?? []).map(({ key, value }) => [key, item.decode(value)] as const);
      return Object.fromEntries(
        decoded.filter((entry): entry is readonly [string, NonNullable<T>] => entry[1] != null),
      );
    },
  };
}

/** Whichever decoder `pick` chooses by looking at the node: for keys whose shape differs between releases. */
export function either<A, B>(pick: (node: ConfigNode) => boolean, yes: Decoder<A>, no: Decoder<B>): Decoder<A | B> {
  return { decode: (node) => (pick(node) ? yes.decode(node) : no.decode(node)) };
}

/** How many keys of a file a schema knows, at every level: tells which of two formats a file is written in. */
export function knownKeys(node: ConfigNode, schema: Decoder<unknown>): number {
  if (!isSection(schema)) return 0;
  let known = 0;
  for (const { key, value } of node.entries ?? []) {
    const inner = Object.hasOwn(schema.shape, key) ? schema.shape[key] : undefined;
    if (inner !== undefined) known += 1 + knownKeys(value, inner);
    else if (Object.hasOwn(schema.unused, key)) known++;
  }
  return known;
}

function isSection(schema: Decoder<unknown>): schema is Section<Shape> {
  return 'shape' in schema && 'unused' in schema;
}

/** Anything at all, left for somebody else to read. */
export const raw: Decoder<ConfigNode> = { decode: (node) => node };
