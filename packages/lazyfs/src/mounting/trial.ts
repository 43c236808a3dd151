import { randomUUID } from 'node:crypto';
import { closeSync, readFile, readlinkSync, writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { PantalaError } from '@pantala/base';
import {
  ACCESS_EVENT_LENGTH,
  accessEvents,
  answerAccess,
  createAccessGroup,
  markFile,
  pollReadable,
  readInto,
} from '@pantala/linux';
import type { DriverName } from '../driver.ts';
import { emptyErofs } from './empty-erofs.ts';
import { mountErofs, needsLoop, unmountErofs } from './erofs.ts';

/** What this machine can do for lazy mounts, and why not more. */
export interface Capabilities {
  readonly driver: DriverName;
  /** Whether EROFS needs loop devices. */
  readonly loop: boolean;
  /** A sentence for people. */
  readonly reason: string;
}

/** Inode number of the first PID namespace (PROC_PID_INIT_INO of linux/proc_ns.h). */
const HOST_PID_NAMESPACE = 'pid:[4026531836]';
/** Milliseconds for an event about a read that has begun. */
const EVENT_DEADLINE = 2000;

/**
 * Chooses the driver by trying it on the file system of the cache.
 *
 * @param directory where blob caches lie; it is made
 * @param guarded whether a guardian outside of this process's container holds what this one has
 */
export async function tryDrivers(directory: string, guarded = false): Promise<Capabilities> {
  await mkdir(directory, { recursive: true });
  const scratch = await mkdtemp(join(directory, '.trial-'));
  try {
    const loop = await tryMount(scratch);
    if (loop !== undefined) {
      return { driver: 'fuse', loop: true, reason: `this kernel mounts EROFS from block devices only: ${loop}` };
    }
    const events = (await tryEvents(scratch)) ?? (guarded ? undefined : foreignNamespace());
    return events === undefined
      ? { driver: 'fanotify', loop: false, reason: `events before reads work on the file system of ${directory}` }
      : { driver: 'fuse', loop: false, reason: events };
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** Why EROFS cannot be mounted from a file; undefined when it can. */
async function tryMount(scratch: string): Promise<string | undefined> {
  const bootstrap = join(scratch, 'empty.erofs');
  const target = join(scratch, 'mount');
  writeFileSync(bootstrap, emptyErofs());
  try {
    await mountErofs({ bootstrap, devices: [], target, loop: false });
  } catch (error) {
    if (needsLoop(error)) return PantalaError.from(error).message;
    throw error;
  }
  await unmountErofs(target, { detach: true });
  return undefined;
}

/** Why reads cannot be made to wait; undefined when they can. */
async function tryEvents(scratch: string): Promise<string | undefined> {
  const path = join(scratch, randomUUID());
  writeFileSync(path, 'pantala');
  let group: number | undefined;
  try {
    group = createAccessGroup();
    markFile(group, path);
    const read = promisify(readFile)(path);
    read.catch(() => undefined);
    const buffer = new Uint8Array(16 * ACCESS_EVENT_LENGTH);
    // The read waits on a thread of its own.
    await new Promise(setImmediate);
    pollReadable([group], EVENT_DEADLINE);
    const length = readInto(group, buffer);
    const [event] = accessEvents(buffer.subarray(0, Math.max(0, length)));
    if (event === undefined) return 'the kernel takes marks for events before reads and then sends none';
    answerAccess(group, event.fd, 0);
    closeSync(event.fd);
    return undefined;
  } catch (error) {
    return `no events before reads: ${PantalaError.from(error).message}`;
  } finally {
    // Whatever else waits for an answer goes on.
    if (group !== undefined) closeSync(group);
  }
}

/** Why no guardian started from here would outlive this process's container; undefined on the host. */
function foreignNamespace(): string | undefined {
  try {
    if (readlinkSync('/proc/self/ns/pid') === HOST_PID_NAMESPACE) return undefined;
  } catch {
    return 'the PID namespace cannot be told from the host’s';
  }
  return 'this container has a PID namespace of its own, and no guardian of the host (pantala worker --guardian): one in it would die with it';
}
