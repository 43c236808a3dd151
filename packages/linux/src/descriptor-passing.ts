import { closeSync } from 'node:fs';
import { PantalaError } from '@pantala/base';
import { addressOf, callNow, checked } from './libc.ts';

/** sys/socket.h, the same numbers on x86-64 and arm64. */
const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 8;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;

/** SCM_MAX_FD of the kernel: more in one message is refused. */
export const MAX_DESCRIPTORS_PER_MESSAGE = 253;

/** Bytes of struct cmsghdr on 64 bits. */
const CONTROL_HEADER = 16;
/** sun_path of sockaddr_un. */
const MAX_SOCKET_PATH = 108;

/** Where the parts of a message lie in its memory: struct msghdr, struct iovec, the address, descriptors, bytes. */
const VECTOR_AT = 64;
const NAME_AT = 128;
const CONTROL_AT = 256;
const DATA_AT = 2048;

/** A message in one piece of memory, which lives and keeps its place as long as any part of it is used. */
interface Message {
  /** struct msghdr on 64 bits, and the words behind it. */
  readonly words: BigUint64Array;
  readonly control: Uint8Array;
  readonly data: Uint8Array;
}

function messageOf(dataLength: number, controlLength: number, name: Uint8Array | undefined): Message {
  const memory = new ArrayBuffer(DATA_AT + dataLength);
  const words = new BigUint64Array(memory, 0, CONTROL_AT / 8);
  const base = addressOf(words);
  words.set([base + BigInt(DATA_AT), BigInt(dataLength)], VECTOR_AT / 8);
  if (name !== undefined) new Uint8Array(memory, NAME_AT).set(name);
  words.set([
    name === undefined ? 0n : base + BigInt(NAME_AT),
    BigInt(name?.byteLength ?? 0),
    base + BigInt(VECTOR_AT),
    1n,
    controlLength === 0 ? 0n : base + BigInt(CONTROL_AT),
    BigInt(controlLength),
    0n,
  ]);
  return {
    words,
    control: new Uint8Array(memory, CONTROL_AT, controlLength),
    data: new Uint8Array(memory, DATA_AT, dataLength),
  };
}

/**
 * Sends bytes and copies of descriptors over a unix socket.
 *
 * @param data at least a byte, and no more than the socket takes at once
 * @param path of a datagram socket to send to, for a socket that is not connected; `@` begins an abstract name
 * @throws LinuxError; `invalid-argument` for too many descriptors; `unimplemented`
 */
export function sendDescriptors(socket: number, data: Uint8Array, descriptors: readonly number[], path?: string): void {
  if (descriptors.length > MAX_DESCRIPTORS_PER_MESSAGE) {
    throw new PantalaError(
      'invalid-argument',
      `${descriptors.length} descriptors; at most ${MAX_DESCRIPTORS_PER_MESSAGE}`,
    );
  }
  const name = path === undefined ? undefined : socketAddress(path);
  const message = messageOf(data.byteLength, descriptors.length === 0 ? 0 : space(descriptors.length), name);
  message.data.set(data);
  writeControl(message.control, descriptors);
  const result = callNow('sendmsg', [socket, message.words, MSG_NOSIGNAL]);
  checked('sendmsg', [socket, `${data.byteLength} bytes`, `${descriptors.length} descriptors`], result);
  if (result < data.byteLength) {
    throw new PantalaError('unavailable', `the socket took ${result} of ${data.byteLength} bytes`);
  }
}

function writeControl(control: Uint8Array, descriptors: readonly number[]): void {
  if (control.byteLength === 0) return;
  const view = new DataView(control.buffer, control.byteOffset, control.byteLength);
  view.setBigUint64(0, BigInt(CONTROL_HEADER + descriptors.length * 4), true);
  view.setInt32(8, SOL_SOCKET, true);
  view.setInt32(12, SCM_RIGHTS, true);
  for (const [index, fd] of descriptors.entries()) view.setInt32(CONTROL_HEADER + index * 4, fd, true);
}

/** CMSG_SPACE. */
function space(descriptors: number): number {
  return CONTROL_HEADER + Math.ceil((descriptors * 4) / 8) * 8;
}

/** struct sockaddr_un. */
function socketAddress(path: string): Uint8Array {
  const name = Buffer.from(path);
  if (name.length >= MAX_SOCKET_PATH) {
    throw new PantalaError('invalid-argument', `the socket's path ${path} is longer than ${MAX_SOCKET_PATH - 1} bytes`);
  }
  const abstract = path.startsWith('@');
  if (abstract) name[0] = 0;
  return Buffer.concat([Uint8Array.of(AF_UNIX, 0), name, ...(abstract ? [] : [Uint8Array.of(0)])]);
}

export interface ReceivedMessage {
  /** Empty when the other side has closed. */
  readonly data: Uint8Array;
  /** Belong to the receiver, who closes them. */
  readonly descriptors: readonly number[];
}

/**
 * Receives from a unix socket that Node does not read from.
 *
 * @param length of the data at most, bytes
 * @throws LinuxError; `data-loss` when there were more descriptors than fit; `unimplemented`
 */
export function receiveDescriptors(socket: number, length: number): ReceivedMessage {
  const message = messageOf(length, space(MAX_DESCRIPTORS_PER_MESSAGE), undefined);
  const result = callNow('recvmsg', [socket, message.words, MSG_CMSG_CLOEXEC]);
  const received = checked('recvmsg', [socket, `${length} bytes`], result);
  const descriptors = descriptorsOf(message.control.subarray(0, Number(message.words[5])));
  if ((Number(message.words[6]) & MSG_CTRUNC) !== 0) {
    for (const fd of descriptors) closeSync(fd);
    throw new PantalaError('data-loss', 'a message had more descriptors than one may have');
  }
  return { data: message.data.slice(0, received), descriptors };
}

function descriptorsOf(control: Uint8Array): number[] {
  const view = new DataView(control.buffer, control.byteOffset, control.byteLength);
  const found: number[] = [];
  for (let at = 0; at + CONTROL_HEADER <= control.byteLength; ) {
    const length = Number(view.getBigUint64(at, true));
    if (length < CONTROL_HEADER) break;
    if (view.getInt32(at + 8, true) === SOL_SOCKET && view.getInt32(at + 12, true) === SCM_RIGHTS) {
      for (let fd = at + CONTROL_HEADER; fd + 4 <= at + length; fd += 4) found.push(view.getInt32(fd, true));
    }
    at += Math.ceil(length / 8) * 8;
  }
  return found;
}

/** Two connected unix sockets that block. @throws LinuxError; `unimplemented` */
export function socketPair(): readonly [number, number] {
  const pair = new Int32Array(2);
  checked('socketpair', ['AF_UNIX'], callNow('socketpair', [AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair]));
  return [pair[0] as number, pair[1] as number];
}

/** A datagram socket for `sendDescriptors` with a path, as systemd's notifications need it. */
export function datagramSocket(): number {
  return checked('socket', ['AF_UNIX', 'SOCK_DGRAM'], callNow('socket', [AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0]));
}

/**
 * A blocking unix socket that is connected to whoever listens on a path, for programs that want descriptors by it: Node
 * itself reads and drops them.
 *
 * @throws LinuxError: ENOENT and ECONNREFUSED where nobody listens; `unimplemented`
 */
export function connectSocket(path: string): number {
  const address = socketAddress(path);
  const fd = checked('socket', ['AF_UNIX', 'SOCK_STREAM'], callNow('socket', [AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0]));
  try {
    checked('connect', [path], callNow('connect', [fd, address, address.byteLength]));
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
