import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { createServer as createHttpServer, get } from 'node:http';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { sendFileRange } from '@pantala/linux';
import { afterAll, afterEach, describe, expect, test } from 'vitest';

const LENGTH = 24 * 1024 * 1024 + 77;
const content = randomBytes(LENGTH);
const scratch = mkdtempSync(join(tmpdir(), 'pantala-pump-'));
writeFileSync(join(scratch, 'file'), content);
const file = openSync(join(scratch, 'file'), 'r');
const cleanups: (() => void)[] = [];

afterEach(() => {
  for (const cleanup of cleanups.splice(0)) cleanup();
});
afterAll(() => {
  closeSync(file);
  rmSync(scratch, { recursive: true });
});

/** Both ends of a TCP connection. */
async function connection(): Promise<{ server: Socket; client: Socket }> {
  const listener = createServer({ allowHalfOpen: false });
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const client = connect((listener.address() as AddressInfo).port, '127.0.0.1');
  const [server] = (await once(listener, 'connection')) as [Socket];
  cleanups.push(() => {
    client.destroy();
    server.destroy();
    listener.close();
  });
  for (const socket of [client, server]) socket.on('error', () => {});
  return { server, client };
}

/** A socket that is no plain one, as TLS sockets are: everything must go through its stream. */
function wrapped(socket: Socket): Socket {
  const stream = new PassThrough({ highWaterMark: 64 * 1024 });
  stream.pipe(socket);
  return stream as unknown as Socket;
}

describe('sendFileRange', () => {
  test('sends exactly the range, after what was written before and before what is written after', async () => {
    const { server, client } = await connection();
    const received = buffer(client);
    server.write('head');
    let told = 0;
    await sendFileRange(server, file, 5, LENGTH - 3, {
      onSent: (bytes) => {
        told += bytes;
      },
    });
    server.end('tail');
    const expected = Buffer.concat([Buffer.from('head'), content.subarray(5, LENGTH - 3), Buffer.from('tail')]);
    expect((await received).equals(expected)).toBe(true);
    expect(told).toBe(LENGTH - 8);
  });

  test('waits for a reader that does not read, and goes on when it does', async () => {
    const { server, client } = await connection();
    client.pause();
    let sent = 0;
    let finished = false;
    const sending = sendFileRange(server, file, 0, LENGTH, {
      onSent: (bytes) => {
        sent += bytes;
      },
    }).then(() => {
      finished = true;
    });
    // The kernel's buffers are smaller than the file: at some point bytes stay with the socket.
    while (server.writableLength === 0) await nextTurn();
    expect(finished).toBe(false);
    expect(sent).toBeLessThan(LENGTH);
    const received = buffer(client);
    await sending;
    server.end();
    expect((await received).equals(content)).toBe(true);
  });

  test('many slow and fast readers at once each get their bytes', async () => {
    const ranges = Array.from({ length: 8 }, (_, i) => ({ start: i * 1001, end: LENGTH - i * 100_003 }));
    await Promise.all(
      ranges.map(async ({ start, end }, i) => {
        const { server, client } = await connection();
        const parts: Buffer[] = [];
        client.on('data', (part: Buffer) => {
          parts.push(part);
          if (i % 2 === 0) {
            client.pause();
            setImmediate(() => client.resume());
          }
        });
        await sendFileRange(server, file, start, end);
        server.end();
        await once(client, 'close');
        expect(Buffer.concat(parts).equals(content.subarray(start, end))).toBe(true);
      }),
    );
  });

  test('ends with an error when the reader closes early', async () => {
    for (const how of ['destroy', 'resetAndDestroy'] as const) {
      const { server, client } = await connection();
      client.once('data', () => client[how]());
      await expect(sendFileRange(server, file, 0, LENGTH)).rejects.toMatchObject({ code: 'unavailable' });
    }
  });

  test('ends with an error when our own side is destroyed while it waits, or was before', async () => {
    const { server, client } = await connection();
    client.pause();
    const sending = sendFileRange(server, file, 0, LENGTH);
    while (server.writableLength === 0) await nextTurn();
    server.destroy();
    await expect(sending).rejects.toMatchObject({ code: 'unavailable' });
    await expect(sendFileRange(server, file, 0, 1)).rejects.toMatchObject({ code: 'unavailable' });
  });

  test('ends with its signal while it waits', async () => {
    const { server, client } = await connection();
    client.pause();
    const controller = new AbortController();
    const sending = sendFileRange(server, file, 0, LENGTH, { signal: controller.signal });
    while (server.writableLength === 0) await nextTurn();
    controller.abort();
    await expect(sending).rejects.toMatchObject({ code: 'cancelled' });
  });

  test('a file that is shorter than the range is an error, on either way', async () => {
    const { server, client } = await connection();
    client.resume();
    await expect(sendFileRange(server, file, LENGTH - 5, LENGTH + 5)).rejects.toMatchObject({ code: 'data-loss' });
    await expect(sendFileRange(wrapped(server), file, LENGTH, LENGTH + 1)).rejects.toMatchObject({ code: 'data-loss' });
  });

  test('a socket without a descriptor of its own gets the same bytes through its stream', async () => {
    const { server, client } = await connection();
    const received = buffer(client);
    const stream = wrapped(server);
    await sendFileRange(stream, file, 9, LENGTH);
    stream.end();
    expect((await received).equals(content.subarray(9))).toBe(true);
  });

  test('sends the body of an HTTP answer, and the connection is kept for the next', async () => {
    const server = createHttpServer((request, response) => {
      const [start, end] = (request.url as string).slice(1).split('-').map(Number) as [number, number];
      response.writeHead(200, { 'content-length': end - start });
      response.flushHeaders();
      void sendFileRange(response.socket as Socket, file, start, end).then(() => response.end());
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    cleanups.push(
      () => server.closeAllConnections(),
      () => server.close(),
    );
    let connections = 0;
    server.on('connection', () => connections++);
    const { Agent } = await import('node:http');
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    cleanups.push(() => agent.destroy());
    for (const [start, end] of [
      [0, 10],
      [100, LENGTH],
      [7, 70_000],
    ] as const) {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/${start}-${end}`;
      const body = await new Promise<Buffer>((resolve, reject) => {
        get(url, { agent }, (response) => void buffer(response).then(resolve, reject)).on('error', reject);
      });
      expect(body.equals(content.subarray(start, end))).toBe(true);
    }
    expect(connections).toBe(1);
  });
});
