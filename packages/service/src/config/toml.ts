import { PantalaError } from '@pantala/base';
import { parse, TomlDate, TomlError, type TomlTable, type TomlValue } from 'smol-toml';
import { LineCounter, type Node, Pair, Scalar, YAMLMap, YAMLSeq } from 'yaml';
import { type ConfigNode, type ConfigReport, MAX_CONFIG_BYTES, rootNode, tooLong } from './document.ts';

/** A key with the parts of its path; a quoted part may hold anything but quotes and escapes. */
const PART = /"[^"\\\n]*"|'[^'\n]*'|[A-Za-z0-9_-]+/;
const KEY = new RegExp(`^(\\s*)((?:${PART.source})(?:\\s*\\.\\s*(?:${PART.source}))*)\\s*=`);
const HEADER = new RegExp(`^(\\s*\\[\\[?\\s*)((?:${PART.source})(?:\\s*\\.\\s*(?:${PART.source}))*)\\s*\\](\\]?)`);

/**
 * Parses TOML. Keys inside of inline tables have the place of the key that the table belongs to.
 *
 * @param name stands before line and column in messages
 * @throws `failed-precondition` for text that is too long or no TOML, with line and column
 */
export function parseTomlConfig(text: string, name: string, report: ConfigReport): ConfigNode {
  if (Buffer.byteLength(text) > MAX_CONFIG_BYTES) throw tooLong(name);
  const lines = new LineCounter();
  for (let at = 0; at >= 0; ) {
    lines.addNewLine(at);
    const end = text.indexOf('\n', at);
    at = end < 0 ? -1 : end + 1;
  }
  const places = placesOf(text);
  return rootNode(nodeOf(parsed(text, name), [], 0, places), { name, lines, report });
}

function parsed(text: string, name: string): TomlTable {
  try {
    return parse(text);
  } catch (error) {
    const [, reason = 'not TOML'] =
      /^(?:Invalid TOML document: )?(.*)/.exec(error instanceof Error ? error.message : '') ?? [];
    const place = error instanceof TomlError ? `:${error.line}:${error.column}` : '';
    throw new PantalaError('failed-precondition', `${name}${place}: ${reason}`, { cause: error });
  }
}

type Path = readonly (string | number)[];

/** Offsets of keys by path, as `keyOf` writes it. */
type Places = ReadonlyMap<string, number>;

function keyOf(path: Path): string {
  return JSON.stringify(path);
}

function placesOf(text: string): Places {
  const places = new Map<string, number>();
  const tables = new Map<string, number>();
  let table: Path = [];
  let quote: string | undefined;
  let offset = 0;
  for (const line of text.split('\n')) {
    const header = quote === undefined ? HEADER.exec(line) : null;
    const key = quote === undefined && header === null ? KEY.exec(line) : null;
    if (header !== null) {
      const [, before = '', path = '', isArray = ''] = header;
      table = resolved(partsOf(path), tables);
      if (isArray !== '') {
        const index = (tables.get(keyOf(table)) ?? -1) + 1;
        tables.set(keyOf(table), index);
        note(places, table, offset + before.length);
        table = [...table, index];
      }
      note(places, table, offset + before.length);
    } else if (key !== null) {
      const [, before = '', path = ''] = key;
      note(places, [...table, ...partsOf(path)], offset + before.length);
    }
    for (const [found] of line.matchAll(/"""|'''/g)) {
      if (quote === undefined) quote = found;
      else if (quote === found) quote = undefined;
    }
    offset += line.length + 1;
  }
  return places;
}

function partsOf(path: string): string[] {
  return Array.from(path.matchAll(new RegExp(PART, 'g')), ([part]) => part.replace(/^["'](.*)["']$/, '$1'));
}

/** A header goes through the last element of each array of tables on its way. */
function resolved(parts: readonly string[], tables: ReadonlyMap<string, number>): Path {
  let path: Path = [];
  for (const [at, part] of parts.entries()) {
    path = [...path, part];
    const index = tables.get(keyOf(path));
    if (index !== undefined && at < parts.length - 1) path = [...path, index];
  }
  return path;
}

/** The place of a key, and of the tables that it is the first to name. */
function note(places: Map<string, number>, path: Path, offset: number): void {
  for (let length = 1; length <= path.length; length++) {
    const key = keyOf(path.slice(0, length));
    if (!places.has(key)) places.set(key, offset);
  }
}

function nodeOf(value: TomlValue, path: Path, outer: number, places: Places): Node {
  const offset = places.get(keyOf(path)) ?? outer;
  if (Array.isArray(value)) {
    const list = new YAMLSeq();
    for (const [index, item] of value.entries()) list.items.push(nodeOf(item, [...path, index], offset, places));
    return placed(list, offset);
  }
  if (typeof value === 'object' && !(value instanceof TomlDate)) {
    const map = new YAMLMap();
    for (const [key, item] of Object.entries(value)) {
      const inner = [...path, key];
      const name = placed(new Scalar(key), places.get(keyOf(inner)) ?? offset);
      map.items.push(new Pair(name, nodeOf(item, inner, offset, places)));
    }
    return placed(map, offset);
  }
  return placed(new Scalar(value instanceof TomlDate ? value.toISOString() : value), offset);
}

function placed<N extends Node>(node: N, offset: number): N {
  node.range = [offset, offset, offset];
  return node;
}
