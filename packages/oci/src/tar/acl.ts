import { type ByteString, shown } from '@pantala/base';
import { malformed } from './errors.ts';

/** Tags of entries as Linux keeps them in extended attributes (linux/posix_acl.h), which is also their order. */
const TAGS = {
  owner: 0x01,
  user: 0x02,
  owningGroup: 0x04,
  group: 0x08,
  mask: 0x10,
  other: 0x20,
} as const;
type Tag = keyof typeof TAGS;

/** Of entries that name nobody. */
const NO_ID = 0xffff_ffff;
const VERSION = 2;
const HEADER_LENGTH = 4;
const ENTRY_LENGTH = 8;
/** What an attribute of 64 KiB can hold. */
const MAX_ENTRIES = 8191;

const KINDS: Readonly<Record<string, 'user' | 'group' | 'mask' | 'other'>> = {
  u: 'user',
  user: 'user',
  g: 'group',
  group: 'group',
  m: 'mask',
  mask: 'mask',
  o: 'other',
  other: 'other',
};

interface AclEntry {
  readonly tag: Tag;
  readonly permissions: number;
  readonly id: number;
}

/**
 * An access control list in the text that tars have (POSIX 1003.1e draft 17, as star, GNU tar and bsdtar write it:
 * entries between newlines or commas, `#` begins a comment, a fourth field has the number of a name) as the value of
 * the extended attribute that Linux keeps it in. Undefined when it says no more than a mode does.
 *
 * Whose a name is, only the machine knew that wrote it. To leave such an entry out would give others what it keeps
 * from them: so it is refused, unless its number is said, too, or it is root.
 *
 * @param isDefault of a directory, for what is made in it: one that says no more than a mode is one, too
 * @param offset where it lies in the archive, for messages
 * @throws `invalid-argument`
 */
export function aclValue(text: ByteString, isDefault: boolean, offset: number): Buffer | undefined {
  const entries: AclEntry[] = [];
  for (const line of text.split(/[\n,]/)) {
    const entry = line.replace(/#.*$/, '').trim();
    if (entry !== '') entries.push(parseEntry(entry, offset));
  }
  if (entries.length === 0) return undefined;
  entries.sort((a, b) => TAGS[a.tag] - TAGS[b.tag] || a.id - b.id);
  checkWhole(entries, offset);
  if (!isDefault && entries.length === 3) return undefined;
  const value = Buffer.alloc(HEADER_LENGTH + ENTRY_LENGTH * entries.length);
  value.writeUInt32LE(VERSION, 0);
  for (const [index, { tag, permissions, id }] of entries.entries()) {
    const at = HEADER_LENGTH + ENTRY_LENGTH * index;
    value.writeUInt16LE(TAGS[tag], at);
    value.writeUInt16LE(permissions, at + 2);
    value.writeUInt32LE(id, at + 4);
  }
  return value;
}

function parseEntry(entry: ByteString, offset: number): AclEntry {
  const fields = entry.split(':');
  const kind = KINDS[fields[0] as string];
  // Nobody is named by a mask or by others; some leave that field out.
  if ((kind === 'mask' || kind === 'other') && fields.length === 2) fields.splice(1, 0, '');
  const [, name, letters = '', number] = fields;
  const isMeant = kind !== undefined && name !== undefined && fields.length <= 4 && /^[r-][w-][x-]$/.test(letters);
  const namesSomebody = (kind === 'user' || kind === 'group') && name !== '';
  if (!isMeant || (!namesSomebody && (name !== '' || number !== undefined)))
    throw malformed(
      offset,
      `an access control list has the entry "${shown(entry.slice(0, 100))}", which means nothing`,
    );
  const permissions = Number.parseInt(letters.replace(/-/g, '0').replace(/[rwx]/g, '1'), 2);
  if (namesSomebody) return { tag: kind, permissions, id: idOf(name, number, offset) };
  return { tag: kind === 'user' ? 'owner' : kind === 'group' ? 'owningGroup' : kind, permissions, id: NO_ID };
}

function idOf(name: ByteString, number: string | undefined, offset: number): number {
  const given = number ?? (name === 'root' ? '0' : name);
  const id = /^[0-9]{1,10}$/.test(given) ? Number(given) : NO_ID;
  if (id < NO_ID) return id;
  throw malformed(
    offset,
    `an access control list names "${shown(name.slice(0, 100))}" without a number, as GNU tar does: build from the directory itself, or write the tar with bsdtar or star, which add numbers, or without such lists (tar --no-acls)`,
  );
}

/** @param entries sorted */
function checkWhole(entries: readonly AclEntry[], offset: number): void {
  const count = (tag: Tag) => entries.filter((entry) => entry.tag === tag).length;
  const isTwice = entries.some(
    ({ tag, id }, index) => tag === entries[index - 1]?.tag && id === entries[index - 1]?.id,
  );
  const isNamed = count('user') + count('group') > 0;
  const isWhole = count('owner') === 1 && count('owningGroup') === 1 && count('other') === 1;
  if (isTwice || !isWhole || (isNamed && count('mask') === 0))
    throw malformed(offset, 'an access control list lacks an entry or has one twice');
  if (entries.length > MAX_ENTRIES)
    throw malformed(offset, `an access control list has ${entries.length} entries; at most ${MAX_ENTRIES}`);
}
