import { type ByteString, byteString } from '@pantala/base';
import { NO_XATTRS } from '../tree/node.ts';
import { XATTR_ENTRY_LENGTH, XATTR_HEADER_LENGTH } from './format.ts';
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
    if (xattrs.has(name)) refuse('e_name', nameAt, 'is the name of an earlier attribute too');
    xattrs.set(name, reader.slice(valueAt, valueLength));
    at = valueAt + valueLength;
    at += (4 - ((at - offset) & 3)) & 3;
  }
  return xattrs;
}
