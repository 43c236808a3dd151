import { type ByteString, byteString, PantalaError, shown } from '@pantala/base';
import { NO_XATTRS } from '../tree/node.ts';
import { roundUp, XATTR_ENTRY_LENGTH, XATTR_HEADER_LENGTH } from './format.ts';
import { MAX_XATTR_NAME_LENGTH, MAX_XATTR_VALUE_LENGTH, MAX_XATTRS_LENGTH } from './limits.ts';
import type { BootstrapReader } from './reader.ts';

/** Namespaces by `e_name_index`; those of ACLs are whole names. */
export const XATTR_NAMESPACES: readonly { readonly index: number; readonly prefix: string; readonly whole: boolean }[] =
  [
    { index: 1, prefix: 'user.', whole: false },
    { index: 2, prefix: 'system.posix_acl_access', whole: true },
    { index: 3, prefix: 'system.posix_acl_default', whole: true },
    { index: 4, prefix: 'trusted.', whole: false },
    { index: 6, prefix: 'security.', whole: false },
  ];

/** Entries begin at multiples of it; `i_xattr_icount` counts in it. */
export const XATTR_UNIT = 4;

const BY_INDEX = new Map(XATTR_NAMESPACES.map((namespace) => [namespace.index, namespace]));

/** Refuses a field of the inode whose attributes they are. */
export type Refuse = (field: string, offset: number, fact: string) => never;

/** The attributes in `length` bytes from `offset`, header first. */
export function readXattrs(
  reader: BootstrapReader,
  offset: number,
  length: number,
  refuse: Refuse,
): ReadonlyMap<ByteString, Uint8Array> {
  const shared = reader.u8(offset + 4);
  if (shared !== 0) refuse('h_shared_count', offset + 4, `is ${shared}: RAFS v6 has no shared attributes`);
  const end = offset + length;
  let at = offset + XATTR_HEADER_LENGTH;
  if (at === end) return NO_XATTRS;
  const xattrs = new Map<ByteString, Uint8Array>();
  while (at < end) {
    const nameLength = reader.u8(at);
    const index = reader.u8(at + 1);
    const valueLength = reader.u16(at + 2);
    const namespace = BY_INDEX.get(index) ?? refuse('e_name_index', at + 1, `is ${index}, which RAFS v6 does not have`);
    if (namespace.whole !== (nameLength === 0)) {
      refuse('e_name_len', at, `is ${nameLength}, which ${namespace.prefix} cannot have`);
    }
    const nameAt = at + XATTR_ENTRY_LENGTH;
    const valueAt = nameAt + nameLength;
    if (valueAt > end) refuse('e_name_len', at, `is ${nameLength}, beyond the end of the attributes`);
    if (valueAt + valueLength > end) {
      refuse('e_value_size', at + 2, `is ${valueLength}, beyond the end of the attributes`);
    }
    const name = namespace.prefix + byteString(reader.slice(nameAt, nameLength));
    if (name.includes('\0')) refuse('e_name', nameAt, 'holds a NUL byte');
    if (name.length > MAX_XATTR_NAME_LENGTH) {
      refuse('e_name_len', at, `is ${nameLength}: with ${namespace.prefix} more than ${MAX_XATTR_NAME_LENGTH}`);
    }
    if (xattrs.has(name)) refuse('e_name', nameAt, 'is the name of an earlier attribute too');
    xattrs.set(name, reader.slice(valueAt, valueLength));
    at = offset + roundUp(valueAt + valueLength - offset, XATTR_UNIT);
  }
  return xattrs;
}

/** Bytes of the attributes behind an inode; 0 without any. */
export function xattrsLength(xattrs: ReadonlyMap<ByteString, Uint8Array>): number {
  if (xattrs.size === 0) return 0;
  let length = XATTR_HEADER_LENGTH;
  for (const [name, value] of xattrs) {
    const namespace = namespaceOf(name);
    const nameLength = name.length - namespace.prefix.length;
    if (name.length > MAX_XATTR_NAME_LENGTH) {
      throw unfit(name, `has a name of ${name.length} bytes, Linux finds at most ${MAX_XATTR_NAME_LENGTH}`);
    }
    if (value.length > MAX_XATTR_VALUE_LENGTH) {
      throw unfit(name, `has a value of ${value.length} bytes, at most ${MAX_XATTR_VALUE_LENGTH} fit`);
    }
    length += roundUp(XATTR_ENTRY_LENGTH + nameLength + value.length, XATTR_UNIT);
  }
  if (length > MAX_XATTRS_LENGTH) {
    throw unfit('', `take ${length} bytes in all, at most ${MAX_XATTRS_LENGTH} fit behind an inode`);
  }
  return length;
}

/** Writes them into zeros, in the order of namespace and name. */
export function writeXattrs(bytes: Buffer, offset: number, xattrs: ReadonlyMap<ByteString, Uint8Array>): void {
  let at = offset + XATTR_HEADER_LENGTH;
  const entries = [...xattrs].map(([name, value]) => ({ ...namespaceOf(name), name, value }));
  entries.sort((a, b) => a.index - b.index || (a.name < b.name ? -1 : 1));
  for (const { index, prefix, name, value } of entries) {
    const suffix = name.slice(prefix.length);
    bytes[at] = suffix.length;
    bytes[at + 1] = index;
    bytes.writeUInt16LE(value.length, at + 2);
    bytes.write(suffix, at + XATTR_ENTRY_LENGTH, 'latin1');
    bytes.set(value, at + XATTR_ENTRY_LENGTH + suffix.length);
    at += roundUp(XATTR_ENTRY_LENGTH + suffix.length + value.length, XATTR_UNIT);
  }
}

function namespaceOf(name: ByteString): (typeof XATTR_NAMESPACES)[number] {
  for (const namespace of XATTR_NAMESPACES) {
    if (namespace.whole ? name === namespace.prefix : name.startsWith(namespace.prefix)) {
      if (!namespace.whole && name.length === namespace.prefix.length) break;
      if (name.includes('\0')) throw unfit(name, 'holds a NUL byte');
      return namespace;
    }
  }
  throw unfit(name, 'is in no namespace that RAFS v6 has: user, trusted, security and the two POSIX ACLs');
}

function unfit(name: ByteString, reason: string): PantalaError {
  const subject = name === '' ? 'extended attributes' : `extended attribute ${shown(name)}`;
  return new PantalaError('invalid-argument', `${subject} ${reason}`);
}
