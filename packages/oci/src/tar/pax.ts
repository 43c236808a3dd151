import { type ByteString, byteString, bytesOf } from '@pantala/base';
import { aclValue } from './acl.ts';
import type { TarTime } from './entry.ts';
import { malformed } from './errors.ts';
import { MAX_XATTR_LENGTH } from './limits.ts';

/** Records of an extended header in order, names and values as bytes. Names may come several times (GNU.sparse.0.0). */
export type PaxRecords = readonly (readonly [name: ByteString, value: ByteString])[];

const SPACE = 0x20;
const NEWLINE = 0x0a;

/**
 * Records `<length> <name>=<value>\n` (POSIX pax). The length counts the whole record, so a value may hold anything,
 * newlines and NULs too.
 *
 * @param offset where they lie in the archive, for messages
 * @throws `invalid-argument`
 */
export function parsePax(bytes: Buffer, offset: number): PaxRecords {
  const records: [ByteString, ByteString][] = [];
  let at = 0;
  // Some writers fill the rest with NULs and count them.
  while (at < bytes.length && bytes[at] !== 0) {
    let length = 0;
    let digit = at;
    for (; digit < bytes.length && digit - at < 8; digit++) {
      const byte = bytes[digit] as number;
      if (byte < 0x30 || byte > 0x39) break;
      length = length * 10 + byte - 0x30;
    }
    const end = at + length;
    if (digit === at || bytes[digit] !== SPACE || end > bytes.length || end <= digit + 2 || bytes[end - 1] !== NEWLINE)
      throw malformed(offset + at, 'a pax record does not have the length that it says');
    const equals = bytes.indexOf(0x3d, digit + 1);
    if (equals < 0 || equals >= end - 1 || equals === digit + 1)
      throw malformed(offset + at, 'a pax record lacks a name or "="');
    records.push([bytes.toString('latin1', digit + 1, equals), bytes.toString('latin1', equals + 1, end - 1)]);
    at = end;
  }
  return records;
}

/** Records in their written form, in the order given. */
export function formatPax(records: PaxRecords): ByteString {
  return records.map(([name, value]) => formatRecord(name, value)).join('');
}

function formatRecord(name: ByteString, value: ByteString): ByteString {
  const rest = name.length + value.length + 3;
  let length = rest + String(rest).length;
  if (String(length).length !== String(rest).length) length = rest + String(length).length;
  return `${length} ${name}=${value}\n`;
}

/** Digits alone. @throws `invalid-argument` for anything that is no exact number of 0 and more */
export function paxNumber(value: ByteString, name: string, offset: number): number {
  const number = /^[0-9]{1,16}$/.test(value) ? Number(value) : Number.NaN;
  if (!Number.isSafeInteger(number)) throw malformed(offset, `the pax record "${name}" holds no number`);
  return number;
}

const TIME = /^(-?)([0-9]{1,15})(?:\.([0-9]*))?$/;

/** Seconds with a fraction, before 1970 with a minus. What is finer than nanoseconds is cut off towards the past. */
export function paxTime(value: ByteString, name: string, offset: number): TarTime {
  const match = TIME.exec(value);
  if (match === null) throw malformed(offset, `the pax record "${name}" holds no time`);
  const [, sign, whole = '', fraction = ''] = match;
  const seconds = Number(whole);
  const nanoseconds = Number(fraction.slice(0, 9).padEnd(9, '0'));
  if (sign === '') return { seconds, nanoseconds };
  const finer = /[1-9]/.test(fraction.slice(9)) ? 1 : 0;
  const back = nanoseconds + finer;
  return back === 0 ? { seconds: 0 - seconds, nanoseconds: 0 } : { seconds: -seconds - 1, nanoseconds: 1e9 - back };
}

export function formatPaxTime({ seconds, nanoseconds }: TarTime): ByteString {
  if (nanoseconds === 0) return String(seconds);
  const before = seconds < 0;
  const whole = before ? -seconds - 1 : seconds;
  const fraction = before ? 1e9 - nanoseconds : nanoseconds;
  return `${before ? '-' : ''}${whole}.${String(fraction).padStart(9, '0').replace(/0+$/, '')}`;
}

const SCHILY = 'SCHILY.xattr.';
const LIBARCHIVE = 'LIBARCHIVE.xattr.';
const SCHILY_ACL = 'SCHILY.acl.';

/** The extended attribute that a record holds; undefined when it is another record. */
export function paxXattr(
  name: ByteString,
  value: ByteString,
  offset: number,
): { readonly name: ByteString; readonly value: Uint8Array; readonly exact: boolean } | undefined {
  // GNU tar writes the two characters that would end a name or begin an escape as escapes.
  if (name.startsWith(SCHILY)) {
    const key = name.slice(SCHILY.length).replace(/%3D/g, '=').replace(/%25/g, '%');
    return checked(key, bytesOf(value), true, offset);
  }
  if (name.startsWith(LIBARCHIVE)) {
    const key = name.slice(LIBARCHIVE.length).replace(/%([0-9A-Fa-f]{2})/g, (_, hex: string) => unescaped(hex));
    return checked(key, Buffer.from(value, 'base64'), false, offset);
  }
  if (name === `${SCHILY_ACL}access` || name === `${SCHILY_ACL}default`) {
    const kind = name.slice(SCHILY_ACL.length);
    const acl = aclValue(value, kind === 'default', offset);
    return acl && checked(`system.posix_acl_${kind}`, acl, false, offset);
  }
  return undefined;
}

function unescaped(hex: string): string {
  return String.fromCharCode(Number.parseInt(hex, 16));
}

function checked(name: ByteString, value: Uint8Array, exact: boolean, offset: number) {
  if (name === '' || name.length > 255 || name.includes('\0'))
    throw malformed(offset, 'an extended attribute has a name that is none');
  if (value.length > MAX_XATTR_LENGTH)
    throw malformed(offset, `an extended attribute has ${value.length} bytes; at most ${MAX_XATTR_LENGTH}`);
  return { name, value, exact };
}

/** The record for an extended attribute, as GNU tar and Docker write it. */
export function xattrRecord(name: ByteString, value: Uint8Array): readonly [ByteString, ByteString] {
  return [`${SCHILY}${name.replace(/%/g, '%25').replace(/=/g, '%3D')}`, byteString(value)];
}
