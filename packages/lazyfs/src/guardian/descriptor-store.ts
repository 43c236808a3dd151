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

/** Gives copies to systemd; does nothing where it is not there. */
export function storeDescriptors(held: Held, env: NodeJS.ProcessEnv, logger: Logger): void {
  const path = env.NOTIFY_SOCKET;
  if (path === undefined) return;
  let socket: number | undefined;
  try {
    socket = datagramSocket();
    for (const [name, fd] of Object.entries(held.descriptors)) {
      const message = `FDSTORE=1\nFDNAME=${PREFIX}.${held.generation}.${name}`;
      sendDescriptors(socket, Buffer.from(message), [fd], path);
    }
  } catch (error) {
    logger.warn('systemd does not hold the descriptors of lazy mounts', { error: PantalaError.from(error) });
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
