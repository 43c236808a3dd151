import { type ByteString, bytesOf, shown } from '@pantala/base';
import type { FileChunks, NodeKind, Timestamp } from '@pantala/rafs';
import type { TreeEntry } from './entries.ts';

/** An entry as plain data for programs. */
export interface ListedEntry {
  /** Bytes that are not UTF-8 stand as U+FFFD; `pathHex` has them then. */
  readonly path: string;
  readonly pathHex?: string;
  readonly kind: NodeKind;
  /** Octal, four digits. */
  readonly mode: string;
  readonly uid: number;
  readonly gid: number;
  /** Seconds since 1970 with nine decimals. */
  readonly mtime: string;
  readonly nlink: number;
  /** Bytes, of regular files. */
  readonly size?: number;
  readonly chunks?: number;
  readonly target?: string;
  readonly targetHex?: string;
  /** `major:minor`. */
  readonly device?: string;
  /** Name → value in hex. */
  readonly xattrs?: Readonly<Record<string, string>>;
  /** The file's first path, for its other ones. */
  readonly hardLinkTo?: string;
}

export function listedEntry({ path, node, first }: TreeEntry<FileChunks>, nlink: number): ListedEntry {
  const { mode, uid, gid, mtime, xattrs } = node.attributes;
  const name = decoded(path);
  const target = node.kind === 'symlink' ? decoded(node.target) : undefined;
  return {
    path: name.text,
    ...(name.hex === undefined ? {} : { pathHex: name.hex }),
    kind: node.kind,
    mode: mode.toString(8).padStart(4, '0'),
    uid,
    gid,
    mtime: decimal(mtime),
    nlink,
    ...(node.kind === 'regular' ? { size: node.size, chunks: node.content.length } : {}),
    ...(target === undefined ? {} : { target: target.text }),
    ...(target?.hex === undefined ? {} : { targetHex: target.hex }),
    ...(node.kind === 'character' || node.kind === 'block' ? { device: `${node.major}:${node.minor}` } : {}),
    ...(xattrs.size === 0 ? {} : { xattrs: hexValues(xattrs) }),
    ...(first === undefined ? {} : { hardLinkTo: bytesOf(first).toString() }),
  };
}

/** As UTF-8, and in hex as well where it is not that. */
function decoded(value: ByteString): { readonly text: string; readonly hex: string | undefined } {
  const bytes = bytesOf(value);
  const text = bytes.toString();
  return { text, hex: Buffer.from(text).equals(bytes) ? undefined : bytes.toString('hex') };
}

function hexValues(xattrs: ReadonlyMap<ByteString, Uint8Array>): Record<string, string> {
  return Object.fromEntries([...xattrs].map(([name, value]) => [shown(name), Buffer.from(value).toString('hex')]));
}

/** Seconds with nine decimals: what is below zero counts on from the whole second before it. */
function decimal({ seconds, nanoseconds }: Timestamp): string {
  const nanos = BigInt(seconds) * 1_000_000_000n + BigInt(nanoseconds);
  const digits = (nanos < 0n ? -nanos : nanos).toString().padStart(10, '0');
  return `${nanos < 0n ? '-' : ''}${digits.slice(0, -9)}.${digits.slice(-9)}`;
}

const LETTERS: Readonly<Record<NodeKind, string>> = {
  directory: 'd',
  regular: '-',
  symlink: 'l',
  character: 'c',
  block: 'b',
  fifo: 'p',
  socket: 's',
};

/** As `ls -l` writes it: `drwxr-sr-t`. */
export function modeLetters(kind: NodeKind, mode: number): string {
  const bits = 'rwxrwxrwx'.split('').map((letter, place) => ((mode & (0o400 >> place)) !== 0 ? letter : '-'));
  for (const [bit, place, letter] of [
    [0o4000, 2, 's'],
    [0o2000, 5, 's'],
    [0o1000, 8, 't'],
  ] as const) {
    if ((mode & bit) !== 0) bits[place] = bits[place] === 'x' ? letter : letter.toUpperCase();
  }
  return LETTERS[kind] + bits.join('');
}

/** A line for people, as `ls -l` has it: permissions, links, owner, size or device, time in UTC, path. */
export function listedLine({ path, node, first }: TreeEntry<FileChunks>, nlink: number): string {
  const { mode, uid, gid, mtime, xattrs } = node.attributes;
  const size =
    node.kind === 'regular'
      ? String(node.size)
      : node.kind === 'character' || node.kind === 'block'
        ? `${node.major},${node.minor}`
        : '-';
  const suffix = node.kind === 'symlink' ? ` -> ${shown(node.target)}` : node.kind === 'directory' ? '/' : '';
  const also = first === undefined ? '' : ` = ${shown(first)}`;
  return [
    `${modeLetters(node.kind, mode)}${xattrs.size > 0 ? '+' : ' '}`,
    String(nlink).padStart(3),
    `${uid}:${gid}`.padEnd(11),
    size.padStart(12),
    moment(mtime),
    `${shown(path)}${suffix}${also}`,
  ].join(' ');
}

/** Milliseconds that a Date can be away from 1970. */
const LAST_MOMENT = 8.64e15;

function moment(time: Timestamp): string {
  const milliseconds = time.seconds * 1000;
  if (Math.abs(milliseconds) > LAST_MOMENT) return decimal(time);
  return new Date(milliseconds).toISOString().slice(0, 19).replace('T', ' ');
}
