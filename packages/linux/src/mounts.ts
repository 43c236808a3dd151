import { closeSync, readFileSync, readSync } from 'node:fs';
import { PantalaError } from '@pantala/base';
import { LinuxError } from './errors.ts';
import { type Argument, callOnThread, checked, type LibcFunction } from './libc.ts';

/** Commands and flags of the mount calls, linux/mount.h. */
const FSOPEN_CLOEXEC = 1;
const FSMOUNT_CLOEXEC = 1;
const FSCONFIG_SET_FLAG = 0;
const FSCONFIG_SET_STRING = 1;
const FSCONFIG_CMD_CREATE = 6;
const MOVE_MOUNT_FROM_EMPTY_PATH = 4;
const AT_FDCWD = -100;

/** Attributes of a mount, linux/mount.h. */
export const MOUNT_ATTRIBUTES = { readOnly: 1, noSuid: 2, noDevices: 4, noExecution: 8 } as const;

/** A file system that is to be mounted. */
export interface MountRequest {
  /** As in `erofs`. */
  readonly type: string;
  /** Parameters in order; a key may be there many times. A value of `true` is a flag. */
  readonly parameters: readonly (readonly [key: string, value: string | true])[];
  /** Bits of MOUNT_ATTRIBUTES. */
  readonly attributes: number;
  readonly target: string;
}

/**
 * Mounts by fsopen, fsconfig, fsmount and move_mount: parameters of any number and length, where the data of mount(2)
 * ends at a page. On a thread of the pool: a mount reads from its source, and who answers these reads must be free to.
 *
 * @throws LinuxError, with what the kernel says about the reason; `unimplemented`
 */
export async function mountFileSystem({ type, parameters, attributes, target }: MountRequest): Promise<void> {
  const context = await call('fsopen', [type, FSOPEN_CLOEXEC], [type]);
  try {
    for (const [key, value] of parameters) {
      const given = value === true ? null : value;
      const command = value === true ? FSCONFIG_SET_FLAG : FSCONFIG_SET_STRING;
      await configure(context, [context, command, key, given, 0], [type, key, given ?? '']);
    }
    await configure(context, [context, FSCONFIG_CMD_CREATE, null, null, 0], [type, 'create']);
    const mounted = await call('fsmount', [context, FSMOUNT_CLOEXEC, attributes], [type]);
    try {
      const args = [mounted, '', AT_FDCWD, target, MOVE_MOUNT_FROM_EMPTY_PATH] as const;
      await call('move_mount', args, [type, target]);
    } finally {
      closeSync(mounted);
    }
  } finally {
    closeSync(context);
  }
}

async function call(name: LibcFunction, args: readonly Argument[], shown: readonly (string | number)[]) {
  return checked(name, shown, await callOnThread(name, args));
}

async function configure(context: number, args: readonly Argument[], shown: readonly string[]): Promise<void> {
  try {
    await call('fsconfig', args, shown);
  } catch (error) {
    const reasons = reasonsOf(context);
    if (!(error instanceof LinuxError) || reasons.length === 0) throw error;
    throw new PantalaError(error.code, `${error.message} (${reasons.join('; ')})`, {
      cause: error,
      details: error.details,
    });
  }
}

/** Messages that wait in a file system context. The kernel drops the oldest; there are never more than a few. */
const MAX_REASONS = 16;

/** What the kernel says about a configuration, a line for each read: `e erofs: …`. */
function reasonsOf(context: number): string[] {
  const lines: string[] = [];
  const buffer = Buffer.alloc(4096);
  try {
    while (lines.length < MAX_REASONS) lines.push(buffer.toString('utf8', 0, readSync(context, buffer)).trim());
  } catch {
    // ENODATA: that was all.
  }
  return lines;
}

/** Flags of mount(2), sys/mount.h. */
export const MOUNT_FLAGS = { readOnly: 1, noSuid: 2, noDevices: 4, noExecution: 8 } as const;

/**
 * mount(2), for what takes a descriptor as text in its data (FUSE).
 *
 * @param data at most a page
 * @throws LinuxError; `unimplemented`
 */
export async function mountWithData(
  source: string,
  target: string,
  type: string,
  flags: number,
  data: string,
): Promise<void> {
  checked(
    'mount',
    [source, target, type, flags, data],
    await callOnThread('mount', [source, target, type, flags, data]),
  );
}

/** Flags of umount2(2), sys/mount.h. */
const MNT_DETACH = 2;

/**
 * Takes a mount away. Detached, it goes at once and its last user ends it; else it fails with EBUSY while it is used.
 *
 * @throws LinuxError; `unimplemented`
 */
export async function unmount(target: string, options: { readonly detach: boolean }): Promise<void> {
  const flags = options.detach ? MNT_DETACH : 0;
  checked('umount2', [target, options.detach ? 'MNT_DETACH' : 0], await callOnThread('umount2', [target, flags]));
}

/** A line of /proc/self/mountinfo (proc(5)). */
export interface MountEntry {
  /** Unique among the mounts that are there now. */
  readonly id: number;
  readonly parentId: number;
  /** `major:minor` of the file system. */
  readonly device: string;
  readonly target: string;
  readonly type: string;
  readonly source: string;
  /** Of the file system, as the kernel writes them: separated by commas. */
  readonly options: string;
}

/** Every mount that this process sees, in the order in which they were made. */
export function mountTable(): MountEntry[] {
  return parseMountTable(readFileSync('/proc/self/mountinfo', 'utf8'));
}

/** Parses the text of mountinfo; lines that are none are left out. */
export function parseMountTable(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split('\n')) {
    const match = /^(\d+) (\d+) (\S+) \S+ (\S+) \S+ .*?- (\S+) (\S*) (\S+)/.exec(line);
    if (match === null) continue;
    const [, id, parentId, device, target, type, source, options] = match as unknown as string[];
    entries.push({
      id: Number(id),
      parentId: Number(parentId),
      device: device as string,
      target: unescaped(target as string),
      type: type as string,
      source: unescaped(source as string),
      options: options as string,
    });
  }
  return entries;
}

/** The kernel writes blanks, tabs, line ends and backslashes as three octal digits. */
function unescaped(text: string): string {
  if (!text.includes('\\')) return text;
  // Bytes of UTF-8 are never escaped, so that characters survive.
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) => String.fromCharCode(Number.parseInt(digits, 8)));
}
