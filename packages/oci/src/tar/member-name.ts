import { type ByteString, PantalaError, shown } from '@pantala/base';
import { MAX_NAME_LENGTH, MAX_PATH_LENGTH } from './limits.ts';

/**
 * The path below the root that a member's name stands for: leading slashes go, as tar drops them; `.` and empty names
 * too; `..` takes the name before it away.
 *
 * @throws `invalid-argument` naming it, when it leaves the root or no file could have it
 */
export function memberPath(name: ByteString): ByteString {
  if (name.length > MAX_PATH_LENGTH) throw refused(name, `has more than ${MAX_PATH_LENGTH} bytes`);
  if (name.includes('\0')) throw refused(name, 'holds a NUL');
  if (isClean(name)) return name;
  const names: ByteString[] = [];
  for (const part of name.split('/')) {
    if (part === '' || part === '.') continue;
    if (part === '..') {
      if (names.pop() === undefined) throw refused(name, 'leaves the root');
      continue;
    }
    if (part.length > MAX_NAME_LENGTH) throw refused(name, `has a name of more than ${MAX_NAME_LENGTH} bytes`);
    names.push(part);
  }
  return names.join('/');
}

/** Most names are what they stand for: told without taking them apart. */
function isClean(name: ByteString): boolean {
  let start = 0;
  for (let at = 0; at <= name.length; at++) {
    const code = at === name.length ? 0x2f : name.charCodeAt(at);
    if (code !== 0x2f) continue;
    const length = at - start;
    if (length === 0 || length > MAX_NAME_LENGTH) return false;
    if (name.charCodeAt(start) === 0x2e && (length === 1 || (length === 2 && name.charCodeAt(start + 1) === 0x2e)))
      return false;
    start = at + 1;
  }
  return true;
}

function refused(name: ByteString, why: string): PantalaError {
  const short = name.length > 200 ? `${name.slice(0, 200)}…` : name;
  return new PantalaError('invalid-argument', `the tar has a member "${shown(short)}" whose name ${why}`);
}
