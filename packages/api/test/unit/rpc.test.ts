import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import { connect as connectHttp2 } from 'node:http2';
import { connect as connectTo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { PantalaError } from '@pantala/base';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  createClient,
  createServer,
  healthV1,
  MessageQueue,
  managerV2,
  pantalaV1,
  type RpcAddress,
  RpcError,
  schedulerV2,
  serve,
} from '../../src/index.ts';

const { Peer, Scheduler } = pantalaV1;
const ANY_PORT: RpcAddress = { host: '127.0.0.1', port: 0 };

describe('TCP', () => {
  test('a unary call carries messages both ways', async () => {
    await using server = await createServer({
      address: ANY_PORT,
      services: [serve(Peer, { openTask: async ({ url }) => ({ contentLength: BigInt(url.length) }) })],
    });
    using client = createClient(Peer, server.address);
    expect((await client.openTask({ taskId: 'a', url: 'http://x' })).contentLength).toBe(8n);
  });

  test('a method without a handler is UNIMPLEMENTED with its name', async () => {
    await using server = await createServer({ address: ANY_PORT, services: [serve(Peer, {})] });
    using client = createClient(Peer, server.address);
    await expect(client.describe({})).rejects.toMatchObject({ code: 'unimplemented', status: 12 });
    await expect(client.describe({})).rejects.toThrow('pantala.v1.Peer/Describe');
    await expect(async () => {
      for await (const _ of client.watchTask({ taskId: 'a' }));
    }).rejects.toMatchObject({ code: 'unimplemented' });
  });

  test('an origin error keeps its status, words and headers', async () => {
    class OriginError extends PantalaError {
      readonly headers = { 'www-authenticate': 'Bearer realm="x"' };
    }
    await using server = await createServer({
      address: ANY_PORT,
      services: [
        serve(Peer, {
          openTask: async () => {
            throw new OriginError('origin', 'the registry refuses', { details: { status: 401 } });
          },
        }),
      ],
    });
    using client = createClient(Peer, server.address);
    const error = await client.openTask({}).catch((thrown: unknown) => thrown);
    if (!(error instanceof RpcError)) throw new Error('an RpcError is expected');
    expect(error.code).toBe('origin');
    expect(error.details).toEqual({ status: 401 });
    expect(error.backend).toMatchObject({
      statusCode: 401,
      message: 'the registry refuses',
      header: { 'www-authenticate': 'Bearer realm="x"' },
    });
  });

  test('server streaming goes only as fast as the reader, and ends for the handler when the reader stops', async () => {
    let sent = 0;
    const left = Promise.withResolvers<void>();
    await using server = await createServer({
      address: ANY_PORT,
      services: [
        serve(Peer, {
          async *watchTask() {
            try {
              for (let first = 0; ; first++) {
                sent++;
                yield { held: Array.from({ length: 4096 }, () => ({ first: first * 65_536, count: 1 })) };
              }
            } finally {
              left.resolve();
            }
          },
        }),
      ],
    });
    using client = createClient(Peer, server.address);
    for await (const news of client.watchTask({ taskId: 'a' })) {
      expect(news.held).toHaveLength(4096);
      break;
    }
    await left.promise;
    // A stream without back-pressure would have sent without end: 2 MiB of window hold about 60 such messages.
    expect(sent).toBeLessThan(1000);
  });

  test('a client stream arrives whole and in order', async () => {
    const hostnames: string[] = [];
    await using server = await createServer({
      address: ANY_PORT,
      services: [
        serve(managerV2.Manager, {
          keepAlive: async (requests) => {
            for await (const { hostname } of requests) hostnames.push(hostname);
            return {};
          },
        }),
      ],
    });
    using client = createClient(managerV2.Manager, server.address);
    async function* requests() {
      for (let index = 0; index < 500; index++) yield { hostname: String(index) };
    }
    await client.keepAlive(requests());
    expect(hostnames).toEqual(Array.from({ length: 500 }, (_, index) => String(index)));
  });

  test('a bidirectional stream answers while it is asked', async () => {
    await using server = await createServer({
      address: ANY_PORT,
      services: [
        serve(Scheduler, {
          async *converse(requests) {
            for await (const { hostId } of requests) {
              yield { response: { case: 'digestsVoid', value: { taskId: hostId } } };
            }
          },
        }),
      ],
    });
    using client = createClient(Scheduler, server.address);
    const asked = new MessageQueue<{ hostId: string }>();
    const answers = client.converse(asked);
    for (const hostId of ['a', 'b', 'c']) {
      asked.push({ hostId });
      const { value } = await answers.next();
      expect(value?.response).toMatchObject({ case: 'digestsVoid', value: { taskId: hostId } });
    }
    asked.end();
    expect((await answers.next()).done).toBe(true);
  });

  test('the end of a bidirectional call ends its reading of requests', async () => {
    const reading = Promise.withResolvers<unknown>();
    await using server = await createServer({
      address: ANY_PORT,
      services: [
        serve(schedulerV2.Scheduler, {
          async *announcePeer(requests) {
            const background = async () => {
              for await (const _ of requests);
            };
            background().then(reading.resolve, reading.resolve);
            yield { response: { case: 'emptyTaskResponse', value: {} } };
          },
        }),
      ],
    });
    using client = createClient(schedulerV2.Scheduler, server.address);
    const requests = new MessageQueue<{ hostId: string }>();
    const received = [];
    for await (const response of client.announcePeer(requests)) received.push(response);
    expect(received).toHaveLength(1);
    expect(await reading.promise).toMatchObject({ code: 'cancelled' });
  });

  test('who still sends when the call is over is told to stop, after the status and without an error', async () => {
    await using server = await createServer({
      address: ANY_PORT,
      services: [
        serve(schedulerV2.Scheduler, {
          async *announcePeer() {
            yield { response: { case: 'emptyTaskResponse', value: {} } };
          },
        }),
      ],
    });
    const { host, port } = server.address as { readonly host: string; readonly port: number };
    const session = connectHttp2(`http://${host}:${port}`);
    const stream = session.request({
      ':method': 'POST',
      ':path': '/scheduler.v2.Scheduler/AnnouncePeer',
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    // Never ended: only the server's reset closes the stream.
    stream.write(Buffer.alloc(5));
    stream.resume();
    const [trailers] = await once(stream, 'trailers');
    expect(trailers).toMatchObject({ 'grpc-status': '0' });
    await once(stream, 'close');
    expect(stream.rstCode).toBe(0);
    session.destroy();
  });

  test("a streamed answer outlives the caller's time-out for its beginning", async () => {
    await using server = await createServer({
      address: ANY_PORT,
      services: [
        serve(Peer, {
          async *watchTask() {
            yield {};
            await sleep(200);
            yield {};
          },
        }),
      ],
    });
    const { host, port } = server.address as { readonly host: string; readonly port: number };
    const session = connectHttp2(`http://${host}:${port}`);
    const stream = session.request({
      ':method': 'POST',
      ':path': '/pantala.v1.Peer/WatchTask',
      'content-type': 'application/grpc',
      'grpc-timeout': '50m',
      te: 'trailers',
    });
    let bytes = 0;
    stream.on('data', (data: Buffer) => {
      bytes += data.length;
    });
    stream.end(Buffer.alloc(5));
    const [trailers] = await once(stream, 'trailers');
    expect(trailers).toMatchObject({ 'grpc-status': '0' });
    // Two empty messages.
    expect(bytes).toBe(10);
    session.destroy();
  });

  test('a signal and a deadline end a call on both sides', async () => {
    const seen: AbortSignal[] = [];
    const aborted = Promise.withResolvers<void>();
    await using server = await createServer({
      address: ANY_PORT,
      services: [
        serve(Peer, {
          describe: (_, { signal }) =>
            new Promise((_resolve, reject) => {
              seen.push(signal);
              signal.addEventListener('abort', () => {
                aborted.resolve();
                reject(signal.reason);
              });
            }),
        }),
      ],
    });
    using client = createClient(Peer, server.address);
    await expect(client.describe({}, { deadline: 50 })).rejects.toMatchObject({ code: 'deadline-exceeded' });
    await aborted.promise;
    const controller = new AbortController();
    const call = client.describe({}, { signal: controller.signal });
    controller.abort(new PantalaError('cancelled', 'changed my mind'));
    await expect(call).rejects.toThrow('changed my mind');
    await expect(client.describe({}, { signal: controller.signal })).rejects.toThrow('changed my mind');
  });

  test('a message beyond the limit is refused, not buffered', async () => {
    await using server = await createServer({
      address: ANY_PORT,
      maxMessageLength: 1024,
      services: [serve(Peer, { openTask: async () => ({}) })],
    });
    using client = createClient(Peer, server.address);
    await expect(client.openTask({ url: 'x'.repeat(2048) })).rejects.toMatchObject({ code: 'resource-exhausted' });
  });

  test('a restart under traffic listens again at once on the same port', async () => {
    const service = serve(Peer, { describe: async () => ({ hostId: 'h' }) });
    let server = await createServer({ address: ANY_PORT, services: [service] });
    const { address } = server;
    using client = createClient(Peer, address);
    const traffic = new AbortController();
    const calls = (async () => {
      let failures = 0;
      while (!traffic.signal.aborted) await client.describe({}).catch(() => failures++);
      return failures;
    })();
    for (let round = 0; round < 3; round++) {
      await client.describe({}).catch(() => {});
      await server.stop(0);
      server = await createServer({ address, services: [service] });
    }
    await expect
      .poll(() =>
        client.describe({}).then(
          ({ hostId }) => hostId,
          () => '',
        ),
      )
      .toBe('h');
    traffic.abort();
    await calls;
    await server.stop();
  });

  test('a stop waits for running calls no longer than it is told', async () => {
    const server = await createServer({
      address: ANY_PORT,
      services: [serve(Peer, { describe: () => new Promise(() => {}) })],
    });
    using client = createClient(Peer, server.address);
    const call = client.describe({});
    call.catch(() => {});
    using health = createClient(healthV1.Health, server.address);
    await health.check({});
    await server.stop(10);
    await expect(call).rejects.toBeInstanceOf(RpcError);
  });

  test('health is told for the server, its services and nothing else', async () => {
    await using server = await createServer({ address: ANY_PORT, services: [serve(Peer, {})] });
    using client = createClient(healthV1.Health, server.address);
    expect((await client.check({})).status).toBe(1);
    expect((await client.check({ service: 'pantala.v1.Peer' })).status).toBe(1);
    await expect(client.check({ service: 'none' })).rejects.toMatchObject({ code: 'not-found' });
    const states: number[] = [];
    for await (const { status } of client.watch({})) {
      states.push(status);
      if (states.length === 1) server.health.set(false);
      else break;
    }
    expect(states).toEqual([1, 2]);
  });
});

describe('unix sockets', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'pantala-api-'));
  });
  afterEach(() => rm(directory, { recursive: true }));
  const service = serve(Peer, { describe: async () => ({ hostId: 'h' }) });

  test('is served with the mode asked for and gone after the stop', async () => {
    const address = { path: join(directory, 'sub/d.sock') };
    const server = await createServer({ address, services: [service] });
    expect((await stat(address.path)).mode & 0o777).toBe(0o660);
    using client = createClient(Peer, address);
    expect((await client.describe({})).hostId).toBe('h');
    await expect(createServer({ address, services: [service] })).rejects.toMatchObject({ code: 'already-exists' });
    await server.stop();
    expect(await readdir(join(directory, 'sub'))).toEqual([]);
  });

  test('the socket of a process that was killed is replaced', async () => {
    const address = { path: join(directory, 'd.sock') };
    const listen = `require('node:net').createServer().listen(process.argv[1])`;
    const child = spawn(process.execPath, ['-e', listen, address.path]);
    await expect.poll(() => existsSync(address.path), { timeout: 10_000 }).toBe(true);
    const gone = once(child, 'exit');
    child.kill('SIGKILL');
    await gone;
    await using _server = await createServer({ address, services: [service] });
    using client = createClient(Peer, address);
    expect((await client.describe({})).hostId).toBe('h');
  });

  test('a path that is too long is refused with the limit in the message', async () => {
    const address = { path: join(directory, 'x'.repeat(120)) };
    await expect(createServer({ address, services: [service] })).rejects.toThrow('at most 107 bytes');
  });

  // What Go's clients send is "localhost"; Java's ones send the path. Node's HTTP/2 stack refuses an authority that
  // is none before gRPC sees it, and no option of it changes that: this says which callers are served.
  test.each([
    ['localhost', true],
    ['', false],
    ['/run/d.sock', false],
    ['run%2Fd.sock', true],
  ])('authority "%s": served is %s', async (authority, served) => {
    const address = { path: join(directory, 'd.sock') };
    await using _server = await createServer({ address, services: [service] });
    const session = connectHttp2('http://localhost', { createConnection: () => connectTo(address.path) });
    session.on('error', () => {});
    const stream = session.request({
      ':method': 'POST',
      ':path': '/pantala.v1.Peer/Describe',
      ':authority': authority,
      'content-type': 'application/grpc',
      te: 'trailers',
    });
    const outcome = Promise.withResolvers<boolean>();
    stream.on('trailers', (trailers) => outcome.resolve(trailers['grpc-status'] === '0'));
    stream.on('error', () => outcome.resolve(false));
    stream.on('close', () => outcome.resolve(false));
    stream.resume();
    stream.end(Buffer.alloc(5));
    expect(await outcome.promise).toBe(served);
    session.destroy();
  });
});
