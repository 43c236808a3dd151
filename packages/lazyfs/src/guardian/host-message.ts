import { closeSync } from 'node:fs';
import { monotonicNow, PantalaError, sleep } from '@pantala/base';
import { pollReadable, receiveDescriptors, sendDescriptors } from '@pantala/linux';
import type { Held, HeldName } from './held.ts';

/** Bytes of a message: names and numbers. */
const MAX_MESSAGE_LENGTH = 16 * 1024;
/** Milliseconds for the other side's first message, on a busy machine. */
const MESSAGE_DEADLINE = 5000;
const POLL_PAUSE = 2;

/** Sends a message that names descriptors, with these (SCM_RIGHTS): no PID namespace matters. @throws LinuxError */
export function sendHeld(socket: number, message: object, { generation, descriptors }: Held): void {
  const names = Object.keys(descriptors);
  const line = `${JSON.stringify({ ...message, generation, names })}\n`;
  sendDescriptors(socket, Buffer.from(line), Object.values(descriptors));
}

/**
 * Receives what `sendHeld` sent from a socket that Node does not read from yet.
 *
 * @returns the message, and descriptors that belong to the caller
 * @throws `deadline-exceeded`; `unavailable` when the other side has closed; `data-loss` for what is no such message
 */
export async function receiveHeld<M extends { readonly kind: string }>(
  socket: number,
): Promise<{ readonly message: M; readonly held: Held }> {
  for (const deadline = monotonicNow() + MESSAGE_DEADLINE; pollReadable([socket], 0)[0] === 0; ) {
    if (monotonicNow() > deadline) throw new PantalaError('deadline-exceeded', 'the other side says nothing');
    await sleep(POLL_PAUSE);
  }
  const { data, descriptors } = receiveDescriptors(socket, MAX_MESSAGE_LENGTH);
  try {
    if (data.length === 0) throw new PantalaError('unavailable', 'the other side has closed');
    const message = JSON.parse(Buffer.from(data).toString('utf8')) as M & {
      readonly generation?: string;
      readonly names?: readonly HeldName[];
    };
    const { generation = '', names = [] } = message;
    if (names.length !== descriptors.length) {
      throw new PantalaError('data-loss', `${descriptors.length} descriptors came for ${names.length} names`);
    }
    const named = Object.fromEntries(names.map((name, index) => [name, descriptors[index] as number]));
    return { message, held: { generation, descriptors: named } };
  } catch (error) {
    for (const fd of descriptors) closeSync(fd);
    throw error instanceof SyntaxError ? new PantalaError('data-loss', 'a message that is no JSON') : error;
  }
}

/** Closes this process's copies. */
export function closeHeld({ descriptors }: Held): void {
  for (const fd of Object.values(descriptors)) closeSync(fd);
}

export function isEmpty({ descriptors }: Held): boolean {
  return Object.keys(descriptors).length === 0;
}

/** Descriptor of a socket of Node's, which has no public name for it. */
export function descriptorOf(socket: object): number {
  const { _handle: handle } = socket as { readonly _handle?: { readonly fd: number } | null };
  if (handle === undefined || handle === null) throw new PantalaError('unavailable', 'the other side has closed');
  return handle.fd;
}
