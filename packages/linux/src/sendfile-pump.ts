import { read, readSync } from 'node:fs';
import { Socket } from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { abortable, PantalaError, throwIfAborted } from '@pantala/base';
import { sendfile, WOULD_BLOCK } from './files.ts';
import { whyMissing } from './libc.ts';

/**
 * Bytes that are read and written through memory to learn when a full socket has room again: libuv calls back once
 * they are in the kernel's buffer, and the kernel lets it write only when a third of that is free. So few of them
 * that fast readers get nearly everything by sendfile.
 */
const PROBE_LENGTH = 8 * 1024;

/** Bytes of one read and write where there is no sendfile. */
const CHUNK_LENGTH = 256 * 1024;

/** Bytes that one range may send in one turn of the event loop, so that others get theirs. */
const TURN_LENGTH = 1024 * 1024;

/** Free buffers that are kept for the next pump: enough for as many slow readers at once. */
const MAX_IDLE_BUFFERS = 16;

export interface SendOptions {
  readonly signal?: AbortSignal;
  /** Told after each part how many bytes more were handed to the socket. */
  readonly onSent?: (bytes: number) => void;
}

/**
 * Sends the bytes `start` up to `end` of a file on a socket, in order after what was written to it before. Nothing
 * else may write to the socket until the promise settles. Resolves when all bytes are in the kernel's hands; waits as
 * long as the reader does. Also for `res.socket` of node:http once `res.flushHeaders()` was called.
 *
 * Plain TCP and Unix sockets get them by sendfile(2), others (TLS) by read and write.
 *
 * @throws `unavailable` when the socket closes, `data-loss` when the file ends early, `cancelled`; then part of the
 *   range may have been sent, so the socket is good for nothing but to be destroyed
 */
export async function sendFileRange(
  socket: Socket,
  file: number,
  start: number,
  end: number,
  options: SendOptions = {},
): Promise<void> {
  const { signal, onSent } = options;
  let offset = start;
  const sent = (bytes: number) => {
    offset += bytes;
    onSent?.(bytes);
  };
  let full = false;
  while (offset < end) {
    throwIfAborted(signal);
    assertOpen(socket);
    const fd = full ? undefined : plainDescriptor(socket);
    if (fd !== undefined) {
      const turnEnd = Math.min(end, offset + TURN_LENGTH);
      full = fill(fd, file, offset, turnEnd, sent);
      if (!full && offset < end) await nextTurn();
    } else {
      full = false;
      const probe = isPlain(socket) ? PROBE_LENGTH : CHUNK_LENGTH;
      sent(await copyChunk(socket, file, offset, Math.min(probe, end - offset), signal));
    }
  }
}

/** Sends until the socket's buffer is full (true) or `end` is reached (false). */
function fill(socket: number, file: number, start: number, end: number, sent: (bytes: number) => void): boolean {
  let offset = start;
  while (offset < end) {
    const bytes = sendfile(socket, file, offset, end - offset);
    if (bytes === WOULD_BLOCK) return true;
    if (bytes === 0) throw endOfFile(offset, end);
    offset += bytes;
    sent(bytes);
  }
  return false;
}

const readFile = promisify(read);
const idleBuffers: Buffer[] = [];

async function copyChunk(
  socket: Socket,
  file: number,
  offset: number,
  length: number,
  signal: AbortSignal | undefined,
): Promise<number> {
  const buffer = idleBuffers.pop() ?? Buffer.allocUnsafeSlow(CHUNK_LENGTH);
  // A probe is read at once, as sendfile would; more of it on a thread.
  const bytesRead =
    length <= PROBE_LENGTH
      ? readSync(file, buffer, 0, length, offset)
      : (await readFile(file, buffer, 0, length, offset)).bytesRead;
  if (bytesRead === 0) throw endOfFile(offset, offset + length);
  throwIfAborted(signal);
  // A buffer whose write did not end belongs to the socket still: only after the callback it is used again.
  await abortable(write(socket, buffer.subarray(0, bytesRead)), signal);
  if (idleBuffers.length < MAX_IDLE_BUFFERS) idleBuffers.push(buffer);
  return bytesRead;
}

function write(socket: Socket, data: Buffer): Promise<void> {
  return new Promise<void>((resolve, reject) => {
    // A socket that is destroyed with a write under way may report that write as done, or not at all.
    const onClose = () => reject(closed(socket));
    socket.once('close', onClose);
    socket.write(data, (error) => {
      socket.off('close', onClose);
      if ((error !== null && error !== undefined) || socket.destroyed) reject(closed(socket, error));
      else resolve();
    });
  });
}

function assertOpen(socket: Socket): void {
  if (socket.destroyed || socket.writableEnded || socket.closed) throw closed(socket);
}

function closed(socket: Socket, cause: unknown = socket.errored): PantalaError {
  return new PantalaError('unavailable', 'the reader closed the connection', { cause });
}

function endOfFile(offset: number, end: number): PantalaError {
  return new PantalaError('data-loss', `the file ends at byte ${offset} at the latest, ${end} were to be sent`);
}

/** The part of Node's handles that is not in its types. Stable since Node 0.10, used by many, promised by nobody. */
interface HandleOwner {
  readonly _handle?: { readonly fd?: unknown } | null;
}

function isPlain(socket: Socket): boolean {
  return Object.getPrototypeOf(socket) === Socket.prototype && whyMissing('sendfile') === undefined;
}

/** The descriptor of a plain socket that has nothing of its own left to write. */
function plainDescriptor(socket: Socket): number | undefined {
  if (socket.writableLength !== 0 || socket.connecting || !isPlain(socket)) return undefined;
  const fd = (socket as unknown as HandleOwner)._handle?.fd;
  return typeof fd === 'number' && fd >= 0 ? fd : undefined;
}
