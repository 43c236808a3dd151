import { closeSync } from 'node:fs';
import { type Logger, PantalaError } from '@pantala/base';
import { datagramSocket, sendDescriptors } from '@pantala/linux';
import type { Held, HeldName } from './held.ts';

/**
 * systemd's descriptor store (sd_notify(3), FDSTORE=1): where the worker is a unit's main process, systemd holds what
 * the guardian holds, and hands it to the next main process. Units need FileDescriptorStoreMax= for that.
 */

/** First descriptor of socket activation (sd_listen_fds(3)). */
const FIRST = 3;
/** Before the generation, so that descriptors of others are told apart. */
const PREFIX = 'pantala';

const NAMES: ReadonlySet<string> = new Set<HeldName>(['access', 'access-pending', 'fuse', 'fuse-pending']);

/** Tells systemd that the unit has started (READY=1 of sd_notify(3)); does nothing where it is not there. */
export function notifyReady(env: NodeJS.ProcessEnv, logger: Logger): void {
  notify(env, [{ text: 'READY=1', descriptors: [] }], logger);
}

/** Gives copies to systemd; does nothing where it is not there. */
export function storeDescriptors(held: Held, env: NodeJS.ProcessEnv, logger: Logger): void {
  const messages = Object.entries(held.descriptors).map(([name, fd]) => ({
    text: `FDSTORE=1\nFDNAME=${PREFIX}.${held.generation}.${name}`,
    descriptors: [fd],
  }));
  notify(env, messages, logger);
}

/** Has systemd close what it was given. */
export function removeStored(held: Held, env: NodeJS.ProcessEnv, logger: Logger): void {
  const messages = Object.keys(held.descriptors).map((name) => ({
    text: `FDSTOREREMOVE=1\nFDNAME=${PREFIX}.${held.generation}.${name}`,
    descriptors: [],
  }));
  notify(env, messages, logger);
}

interface Notification {
  readonly text: string;
  readonly descriptors: readonly number[];
}

function notify({ NOTIFY_SOCKET: path }: NodeJS.ProcessEnv, messages: readonly Notification[], logger: Logger): void {
  if (path === undefined) return;
  let socket: number | undefined;
  try {
    socket = datagramSocket();
    for (const { text, descriptors } of messages) sendDescriptors(socket, Buffer.from(text), descriptors, path);
  } catch (error) {
    logger.warn('systemd cannot be told', { error: PantalaError.from(error) });
  } finally {
    if (socket !== undefined) closeSync(socket);
  }
}

/**
 * What systemd has kept of the last main process; undefined when that is nothing.
 *
 * @param pid of this process: what is meant for another one is left alone
 */
export function storedDescriptors(env: NodeJS.ProcessEnv, pid: number): Held | undefined {
  if (env.LISTEN_PID !== String(pid)) return undefined;
  const descriptors: Partial<Record<HeldName, number>> = {};
  let generation: string | undefined;
  for (const [index, entry] of (env.LISTEN_FDNAMES ?? '').split(':').entries()) {
    const [prefix, from, name] = entry.split('.');
    if (prefix !== PREFIX || from === undefined || !isHeldName(name)) continue;
    generation ??= from;
    if (from === generation) descriptors[name] = FIRST + index;
  }
  return generation === undefined ? undefined : { generation, descriptors };
}

function isHeldName(name: string | undefined): name is HeldName {
  return name !== undefined && NAMES.has(name);
}
