import { isDeepStrictEqual } from 'node:util';
import { PantalaError } from '@pantala/base';
import { parse, type TomlTable, type TomlValue } from 'smol-toml';
import { quoted } from './hosts-toml.ts';

/** Plug-in whose section names the directory of `hosts.toml` files, by version of the configuration file. */
const PLUGINS: Readonly<Record<number, string>> = {
  1: 'cri',
  2: 'io.containerd.grpc.v1.cri',
  3: 'io.containerd.cri.v1.images',
};

/** A file for a machine that has none: both containerd 1.x and 2.x read version 2. */
export function newConfigToml(directory: string): string {
  return `version = 2\n\n${sectionText(2, directory)}`;
}

/**
 * Makes containerd's `config.toml` name `directory` as the place of `hosts.toml` files. The text is patched, so that
 * comments and layout stay; the result is parsed again and must differ in this one value only.
 *
 * @returns the new text; undefined when nothing has to change
 * @throws `failed-precondition` where the file cannot be changed without breaking something, with what to do by hand
 */
export function withConfigPath(text: string, directory: string, path: string): string | undefined {
  const before = parsed(text, path);
  const version = typeof before.version === 'number' ? before.version : 1;
  const plugin = PLUGINS[version];
  if (plugin === undefined) {
    throw refusal(path, `it is of version ${version}, which is not known here`, directory);
  }
  const registry = tableAt(before, ['plugins', plugin, 'registry']);
  const present = registry?.config_path;
  const directories = typeof present === 'string' ? present.split(':').filter((each) => each !== '') : [];
  if (directories.includes(directory)) return undefined;
  if (directories.length > 0) {
    throw refusal(path, `config_path is ${quoted(directories.join(':'))} already`, directory);
  }
  const rivals = ['mirrors', 'configs'].filter((key) => Object.keys(tableAt(registry ?? {}, [key]) ?? {}).length > 0);
  if (rivals.length > 0) {
    throw refusal(
      path,
      `it has registry.${rivals.join(' and registry.')}, which containerd refuses beside config_path`,
      directory,
    );
  }
  const patched = patch(text, version, directory);
  const expected = withValue(before, ['plugins', plugin, 'registry', 'config_path'], directory);
  if (!isDeepStrictEqual(plain(parsedOrUndefined(patched)), plain(expected))) {
    throw refusal(path, 'its layout cannot be changed safely by a program', directory);
  }
  return patched;
}

function refusal(path: string, reason: string, directory: string): PantalaError {
  return new PantalaError(
    'failed-precondition',
    `${path} is left as it is: ${reason}. Either name that directory with --certs-dir, or write config_path = ${quoted(directory)} into the registry section of the CRI plug-in by hand`,
  );
}

function parsed(text: string, path: string): TomlTable {
  try {
    return parse(text);
  } catch (cause) {
    const reason = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : '';
    throw new PantalaError('failed-precondition', `${path} is no valid TOML (${reason}); it is left as it is`, {
      cause,
    });
  }
}

function parsedOrUndefined(text: string): TomlTable | undefined {
  try {
    return parse(text);
  } catch {
    return undefined;
  }
}

function tableAt(table: TomlTable, keys: readonly string[]): TomlTable | undefined {
  let at: TomlValue | undefined = table;
  for (const key of keys) {
    if (!isTable(at)) return undefined;
    at = at[key];
  }
  return isTable(at) ? at : undefined;
}

function isTable(value: TomlValue | undefined): value is TomlTable {
  return typeof value === 'object' && !Array.isArray(value) && !(value instanceof Date);
}

/** A copy of a table with one more value. */
function withValue(table: TomlTable, keys: readonly string[], value: string): TomlTable {
  const [key = '', ...rest] = keys;
  const inner = table[key];
  return { ...table, [key]: rest.length === 0 ? value : withValue(isTable(inner) ? inner : {}, rest, value) };
}

/** Without prototypes, which the parser sets differently for tables by header and inline. */
function plain(table: TomlTable | undefined): unknown {
  return table === undefined ? undefined : JSON.parse(JSON.stringify(table));
}

function sectionName(version: number): string {
  return version === 1 ? 'plugins.cri.registry' : `plugins."${PLUGINS[version]}".registry`;
}

function sectionText(version: number, directory: string): string {
  return `[${sectionName(version)}]\n  config_path = ${quoted(directory)}\n`;
}

/** Fills an empty config_path, else adds the line to the section, else the section to the file. */
function patch(text: string, version: number, directory: string): string {
  const lines = text.split('\n');
  const header = lines.findIndex((line) => isHeader(line, version));
  if (header < 0) {
    const gap = text === '' || text.endsWith('\n\n') ? '' : text.endsWith('\n') ? '\n' : '\n\n';
    return `${text}${gap}${sectionText(version, directory)}`;
  }
  const next = lines.findIndex((line, index) => index > header && /^\s*\[/.test(line));
  const end = next < 0 ? lines.length : next;
  const empty = lines.findIndex(
    (line, index) => index > header && index < end && /^\s*config_path\s*=\s*(""|'')\s*(#.*)?\r?$/.test(line),
  );
  if (empty >= 0) {
    lines[empty] = (lines[empty] as string).replace(/=\s*(""|'')/, () => `= ${quoted(directory)}`);
  } else {
    const indent = /^\s*/.exec(lines[header] as string)?.[0] ?? '';
    lines.splice(header + 1, 0, `${indent}  config_path = ${quoted(directory)}`);
  }
  return lines.join('\n');
}

function isHeader(line: string, version: number): boolean {
  const match = /^\s*\[\s*plugins\s*\.\s*(?:"([^"]+)"|'([^']+)'|([\w-]+))\s*\.\s*registry\s*\]\s*(#.*)?\r?$/.exec(line);
  return match !== null && (match[1] ?? match[2] ?? match[3]) === PLUGINS[version];
}

/** The first directory of `hosts.toml` files that a configuration names; undefined when it names none. */
export function configPathOf(text: string): string | undefined {
  const table = parsedOrUndefined(text);
  if (table === undefined) return undefined;
  for (const plugin of Object.values(PLUGINS)) {
    const present = tableAt(table, ['plugins', plugin, 'registry'])?.config_path;
    const first = typeof present === 'string' ? present.split(':').find((each) => each !== '') : undefined;
    if (first !== undefined) return first;
  }
  return undefined;
}
