import { execFile, spawn } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, fstatSync, openSync, readFileSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import {
  connectSocket,
  createSharedMemory,
  MAX_DESCRIPTORS_PER_MESSAGE,
  mapShared,
  openPeerProcess,
  openProcess,
  POLLHUP,
  POLLIN,
  pollReadable,
  ReadableSet,
  receiveDescriptors,
  sendDescriptors,
  socketPair,
  takeDescriptor,
  WakeUp,
} from '../../src/index.ts';

const opened: number[] = [];
const files: string[] = [];

function keep<T extends number | readonly number[]>(fds: T): T {
  opened.push(...[fds].flat());
  return fds;
}

function file(content: Uint8Array): string {
  const path = join(tmpdir(), `pantala-${randomUUID()}`);
  writeFileSync(path, content);
  files.push(path);
  return path;
}

afterEach(() => {
  for (const fd of opened.splice(0)) closeSync(fd);
  for (const path of files.splice(0)) rmSync(path, { force: true });
});

describe('poll and wake-ups', () => {
  test('poll sees what has something to read, and only that', () => {
    using first = new WakeUp();
    using second = new WakeUp();
    expect(pollReadable([first.fd, second.fd], 0)).toEqual([0, 0]);
    second.wake();
    expect(pollReadable([first.fd, second.fd], -1)).toEqual([0, POLLIN]);
  });

  test('a process that ends makes its descriptor readable', async () => {
    const child = spawn('sleep', ['100']);
    const fd = keep(openProcess(child.pid as number));
    expect(pollReadable([fd], 0)).toEqual([0]);
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect((pollReadable([fd], 5000)[0] ?? 0) & POLLIN).toBe(POLLIN);
    expect(() => openProcess(child.pid as number)).toThrow(/pidfd_open\(\d+, 0\) failed: ESRCH|failed: ESRCH/);
  });
});

test('shared memory is the same for everybody who maps it', () => {
  const fd = keep(createSharedMemory('pantala-test'));
  writeSync(fd, Buffer.alloc(8192), 0, 8192, 0);
  const one = mapShared(fd, 8192);
  const other = mapShared(fd, 8192);
  one.set([1, 2, 3], 5000);
  expect([...other.subarray(5000, 5003)]).toEqual([1, 2, 3]);
  const read = Buffer.alloc(3);
  readSync(fd, read, 0, 3, 5000);
  expect([...read]).toEqual([1, 2, 3]);
});

describe('descriptors of other processes', () => {
  test('travel over a unix socket, and stay open when the sender closes his', () => {
    const [here, there] = keep(socketPair());
    const path = file(Buffer.from('content'));
    const sent = Array.from({ length: MAX_DESCRIPTORS_PER_MESSAGE }, () => openSync(path, 'r'));
    sendDescriptors(here, Buffer.from('hello'), sent);
    for (const fd of sent) closeSync(fd);
    const { data, descriptors } = receiveDescriptors(there, 100);
    keep(descriptors);
    expect(Buffer.from(data).toString()).toBe('hello');
    expect(descriptors).toHaveLength(MAX_DESCRIPTORS_PER_MESSAGE);
    expect(new Set(descriptors.map((fd) => fstatSync(fd).ino)).size).toBe(1);
    expect(readFileSync(descriptors[17] as number, 'utf8')).toBe('content');
    expect(() => sendDescriptors(here, Buffer.from('x'), [...sent, 1])).toThrow(/254 descriptors; at most 253/);
  });

  test('a message without descriptors, a large one, and the end', () => {
    const [here, there] = socketPair();
    keep(there);
    const bytes = randomBytes(50_000);
    sendDescriptors(here, bytes, []);
    const { data, descriptors } = receiveDescriptors(there, 60_000);
    expect(bytes.equals(data)).toBe(true);
    expect(descriptors).toEqual([]);
    closeSync(here);
    expect((pollReadable([there], 0)[0] ?? 0) & POLLHUP).toBe(POLLHUP);
    expect(receiveDescriptors(there, 10).data).toHaveLength(0);
    expect(() => receiveDescriptors(-1, 10)).toThrow(/recvmsg\(-1, 10 bytes\) failed: EBADF/);
  });

  test('are taken from the process at the other end of a socket, by its own numbers', async () => {
    const path = join(tmpdir(), `pantala-${randomUUID()}.sock`);
    const server = createServer();
    server.listen(path);
    await once(server, 'listening');
    const content = file(Buffer.from('of the child'));
    const script = `const fd = require('fs').openSync(${JSON.stringify(content)}); require('net').connect(${JSON.stringify(path)}).write(String(fd))`;
    const child = execFile(process.execPath, ['-e', script]);
    try {
      const [socket] = (await once(server, 'connection')) as [Socket];
      const [number] = (await once(socket, 'data')) as [Buffer];
      const handle = (socket as unknown as { readonly _handle: { readonly fd: number } })._handle;
      const process = keep(openPeerProcess(handle.fd));
      const fd = keep(takeDescriptor(process, Number(number)));
      expect(readFileSync(fd, 'utf8')).toBe('of the child');
      expect(() => takeDescriptor(process, 999_999)).toThrow(/pidfd_getfd\(\d+, 999999\) failed: EBADF/);
    } finally {
      child.kill('SIGKILL');
      server.close();
    }
  });
});

describe('a unix socket that Node does not read from', () => {
  test('brings a descriptor from a server of Node to whoever has connected', async () => {
    const path = join(tmpdir(), `pantala-${randomUUID()}`);
    files.push(path);
    const content = file(Buffer.from('handed over'));
    const server = createServer((socket: Socket) => {
      const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
      sendDescriptors(fd, Buffer.from('take it'), [keep(openSync(content, 'r'))]);
    }).listen(path);
    await once(server, 'listening');
    const fd = keep(connectSocket(path));
    while (pollReadable([fd], 0)[0] === 0) await new Promise(setImmediate);
    const { data, descriptors } = receiveDescriptors(fd, 100);
    keep(descriptors);
    expect(Buffer.from(data).toString()).toBe('take it');
    expect(readFileSync(descriptors[0] as number, 'utf8')).toBe('handed over');
    server.close();
  });

  test('says where nobody listens', () => {
    expect(() => connectSocket(join(tmpdir(), randomUUID()))).toThrow(/connect.*ENOENT/);
  });
});

test('of two sets that share a descriptor each sees what is there, and its own descriptors', () => {
  using shared = new WakeUp();
  using own = new WakeUp();
  using first = new ReadableSet([shared.fd], [own.fd]);
  using second = new ReadableSet([shared.fd], []);
  expect(first.wait(0)).toEqual([]);
  shared.wake();
  expect(first.wait(-1)).toEqual([shared.fd]);
  expect(second.wait(-1)).toEqual([shared.fd]);
  own.wake();
  expect(new Set(first.wait(-1))).toEqual(new Set([shared.fd, own.fd]));
  expect(second.wait(0)).toEqual([shared.fd]);
});
