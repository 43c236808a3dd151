import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { BLOCK_LENGTH, type BlockRun, noMetrics, PantalaError, silentLogger } from '@pantala/base';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  fetchUpstreamPiece,
  ParentPool,
  type PieceServer,
  type PieceServerOptions,
  type PieceSource,
  type RangeRequest,
  startPieceServer,
} from '../../src/index.ts';
import type { Message } from '../../src/wire/messages.ts';
import { decodePacket, encodePacket } from '../../src/wire/packet.ts';
import { FileTask } from '../support/file-task.ts';

const MIB = 1024 * 1024;
let directory: string;
let task: FileTask;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pantala-wire-'));
  task = new FileTask(directory, 9 * MIB + 12_345, 4 * MIB);
});
afterAll(async () => {
  task.close();
  await rm(directory, { recursive: true });
});

function serve(options: PieceServerOptions = {}, source?: PieceSource): Promise<PieceServer> {
  const own: PieceSource = { find: (id) => (id === task.description.id ? task : undefined) };
  return startPieceServer(
    { host: '127.0.0.1', port: 0, ...options },
    { source: source ?? own, logger: silentLogger, metrics: noMetrics },
  );
}

function newPool(options = {}): ParentPool {
  return new ParentPool(options, { logger: silentLogger });
}

function requestOf(of: FileTask, run: BlockRun, more: Partial<RangeRequest> = {}): RangeRequest & { got: Buffer[] } {
  const got: Buffer[] = [];
  return {
    got,
    taskId: of.description.id,
    pieceLength: of.geometry.pieceLength,
    contentLength: of.geometry.contentLength,
    run,
    wantDigests: false,
    fetchMissing: false,
    gather: false,
    onBlocks: (_, data) => void got.push(Buffer.from(data)),
    signal: new AbortController().signal,
    ...more,
  };
}

function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'resolved',
    (error: unknown) => (error instanceof PantalaError ? error.code : 'no PantalaError'),
  );
}

/** A parent that answers each request as the test says. */
async function fakeParent(
  answer: (socket: Socket, message: Message) => void,
): Promise<{ server: Server; port: number }> {
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (chunk: Buffer) => {
      for (let at = 0; at < chunk.length; ) {
        const packet = decodePacket(chunk, at);
        if (packet === undefined) return;
        at = packet.end;
        answer(socket, packet.message);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return { server, port: typeof address === 'object' && address !== null ? address.port : 0 };
}

describe('ranges between Pantala peers', () => {
  it('brings every block of many requests at once, in order, over one connection', async () => {
    await using server = await serve();
    await using pool = newPool();
    const connection = await pool.connection(server.address);
    const runs: BlockRun[] = [];
    for (let piece = 0; piece < task.geometry.pieceCount; piece++) {
      const { first, count } = task.geometry.pieceBlocks(piece);
      for (let at = first; at < first + count; at += 37)
        runs.push({ first: at, count: Math.min(37, first + count - at) });
    }
    const next = new Map<number, number>();
    await Promise.all(
      runs.map(async (run) => {
        next.set(run.first, run.first);
        const request = requestOf(task, run, {
          onBlocks: async (part, data) => {
            expect(part.first).toBe(next.get(run.first));
            next.set(run.first, part.first + part.count);
            await pause(1);
            expect(data.equals(task.bytesOf(part))).toBe(true);
          },
        });
        await connection.fetch(request);
        expect(next.get(run.first)).toBe(run.first + run.count);
      }),
    );
    expect(server.connections).toBe(1);
    expect(task.leases).toBe(0);
  });

  it('sends the digests of the piece first when asked', async () => {
    await using server = await serve();
    await using pool = newPool();
    const connection = await pool.connection(server.address);
    const events: string[] = [];
    const request = requestOf(
      task,
      { first: 256, count: 2 },
      {
        wantDigests: true,
        onDigests: (digests) => {
          events.push('digests');
          expect(digests.equals(task.blockDigests(task.geometry.pieceBlocks(1)) as Buffer)).toBe(true);
        },
        onBlocks: () => void events.push('blocks'),
      },
    );
    await connection.fetch(request);
    expect(events).toEqual(['digests', 'blocks']);
  });

  it('answers what it does not have with not-found and goes on', async () => {
    await using server = await serve();
    await using pool = newPool();
    const connection = await pool.connection(server.address);
    const other = requestOf(task, { first: 0, count: 1 }, { taskId: 'f'.repeat(64) });
    expect(await codeOf(connection.fetch(other))).toBe('not-found');
    expect(await codeOf(connection.fetch(requestOf(task, { first: 0, count: 1 }, { pieceLength: 8 * MIB })))).toBe(
      'invalid-argument',
    );
    const good = requestOf(task, { first: 3, count: 4 });
    await connection.fetch(good);
    expect(Buffer.concat(good.got).equals(task.bytesOf({ first: 3, count: 4 }))).toBe(true);
  });

  it('sends the blocks that a seed fetches as they arrive, and not before', async () => {
    const seedTask = new FileTask(directory, 4 * MIB, 4 * MIB, false);
    const asked: BlockRun[] = [];
    const fetched = Promise.withResolvers<void>();
    await using server = await serve(
      {},
      {
        find: () => seedTask,
        fetchMissing: (_id, run) => {
          asked.push(run);
          return fetched.promise;
        },
      },
    );
    await using pool = newPool();
    const connection = await pool.connection(server.address);
    const first = Promise.withResolvers<void>();
    const request = requestOf(seedTask, { first: 8, count: 8 }, { fetchMissing: true });
    const done = connection.fetch({
      ...request,
      onBlocks: (run, data) => {
        expect(data.equals(seedTask.bytesOf(run))).toBe(true);
        request.got.push(Buffer.from(data));
        first.resolve();
      },
    });
    expect(await codeOf(connection.fetch(requestOf(seedTask, { first: 8, count: 1 })))).toBe('not-found');
    expect(asked).toEqual([{ first: 8, count: 8 }]);
    seedTask.hold({ first: 8, count: 2 });
    await first.promise;
    expect(Buffer.concat(request.got).length).toBe(2 * BLOCK_LENGTH);
    seedTask.hold({ first: 10, count: 6 });
    fetched.resolve();
    await done;
    expect(Buffer.concat(request.got).equals(seedTask.bytesOf({ first: 8, count: 8 }))).toBe(true);
    seedTask.close();
  });

  it('tells why a seed could not fetch', async () => {
    const seedTask = new FileTask(directory, 4 * MIB, 4 * MIB, false);
    const fetchMissing = () => Promise.reject(new PantalaError('origin', 'the origin said 404'));
    await using server = await serve({}, { find: () => seedTask, fetchMissing });
    await using pool = newPool();
    const connection = await pool.connection(server.address);
    const request = requestOf(seedTask, { first: 0, count: 8 }, { fetchMissing: true });
    await expect(connection.fetch(request)).rejects.toThrow(/the origin said 404/);
    seedTask.close();
  });

  it('stops reading while receivers are busy', async () => {
    const large = new FileTask(directory, 64 * MIB, 64 * MIB);
    await using server = await serve({}, { find: () => large });
    await using pool = newPool();
    const connection = await pool.connection(server.address);
    const release = Promise.withResolvers<void>();
    const entered = Promise.withResolvers<void>();
    let calls = 0;
    let bytes = 0;
    const done = connection.fetch(
      requestOf(
        large,
        { first: 0, count: large.geometry.blockCount },
        {
          onBlocks: async (_run, data) => {
            calls++;
            bytes += data.length;
            entered.resolve();
            await release.promise;
          },
        },
      ),
    );
    await entered.promise;
    await pause(200);
    expect(calls).toBe(1);
    expect(large.leases).toBe(1);
    release.resolve();
    await done;
    expect(bytes).toBe(64 * MIB);
    large.close();
  });

  it('cancels one request and keeps the connection for others', async () => {
    await using server = await serve();
    await using pool = newPool();
    const connection = await pool.connection(server.address);
    const abort = new AbortController();
    const request = requestOf(
      task,
      { first: 0, count: 256 },
      {
        signal: abort.signal,
        onBlocks: () => abort.abort(),
      },
    );
    expect(await codeOf(connection.fetch(request))).toBe('cancelled');
    const good = requestOf(task, { first: 512, count: 65 });
    await connection.fetch(good);
    expect(Buffer.concat(good.got).equals(task.bytesOf({ first: 512, count: 65 }))).toBe(true);
    expect(connection.usable).toBe(true);
    expect(task.leases).toBe(0);
  });

  it('ends a request whose receiver fails with that failure', async () => {
    await using server = await serve();
    await using pool = newPool();
    const connection = await pool.connection(server.address);
    const onBlocks = () => Promise.reject(new PantalaError('disk-full', 'no room'));
    expect(await codeOf(connection.fetch(requestOf(task, { first: 0, count: 256 }, { onBlocks })))).toBe('disk-full');
    await connection.fetch(requestOf(task, { first: 0, count: 256 }));
  });

  it('answers more requests than allowed with resource-exhausted', async () => {
    const seedTask = new FileTask(directory, 4 * MIB, 4 * MIB, false);
    await using server = await serve(
      { maxRequests: 2 },
      { find: () => seedTask, fetchMissing: () => new Promise(() => {}) },
    );
    await using pool = newPool();
    const connection = await pool.connection(server.address);
    const waiting = [0, 1].map((first) =>
      codeOf(connection.fetch(requestOf(seedTask, { first, count: 1 }, { fetchMissing: true }))),
    );
    const third = requestOf(seedTask, { first: 2, count: 1 }, { fetchMissing: true });
    expect(await codeOf(connection.fetch(third))).toBe('resource-exhausted');
    await pool.drop(server.address);
    expect(await Promise.all(waiting)).toEqual(['cancelled', 'cancelled']);
    seedTask.close();
  });

  it.each([
    ['upload rate', { uploadRate: 8 * MIB }, {}],
    ['upload rate of each child', { connectionUploadRate: 8 * MIB }, {}],
    ['download rate of each parent', {}, { connectionRate: 8 * MIB }],
  ])('keeps to the %s', async (_name, serverOptions, poolOptions) => {
    await using server = await serve(serverOptions);
    await using pool = newPool(poolOptions);
    const connection = await pool.connection(server.address);
    const start = performance.now();
    await connection.fetch(requestOf(task, { first: 0, count: 256 }));
    // 4 MiB less the bucket's 100 ms, and less the 512 KiB that were received before they are paid.
    expect(performance.now() - start).toBeGreaterThan(330);
  });
});

describe('parents that misbehave', () => {
  const cases: [name: string, code: string, answer: (socket: Socket, request: number) => void][] = [
    ['says nothing', 'unavailable', () => {}],
    ['closes', 'unavailable', (socket) => socket.end()],
    ['ends early', 'data-loss', (socket, request) => socket.write(encodePacket({ kind: 'range-end', request }))],
    [
      'announces a wrong length',
      'data-loss',
      (socket, request) =>
        socket.write(encodePacket({ kind: 'range-data', request, run: { first: 0, count: 1 }, bytes: 16_000 })),
    ],
    [
      'sends other blocks',
      'data-loss',
      (socket, request) =>
        socket.write(encodePacket({ kind: 'range-data', request, run: { first: 1, count: 1 }, bytes: BLOCK_LENGTH })),
    ],
    [
      'answers another request',
      'data-loss',
      (socket, request) => socket.write(encodePacket({ kind: 'range-end', request: request + 5 })),
    ],
    ['speaks something else', 'data-loss', (socket) => socket.write('HTTP/1.1 400 Bad Request\r\n\r\n')],
    [
      'sends unasked digests',
      'data-loss',
      (socket, request) =>
        socket.write(encodePacket({ kind: 'range-digests', request, piece: 0, digests: Buffer.alloc(32 * 256) })),
    ],
    [
      'trickles',
      'unavailable',
      (socket, request) => {
        socket.write(encodePacket({ kind: 'range-data', request, run: { first: 0, count: 1 }, bytes: BLOCK_LENGTH }));
        const timer = setInterval(() => socket.write('x'), 50);
        socket.on('close', () => clearInterval(timer));
      },
    ],
  ];
  for (const [name, code, answer] of cases) {
    it(`${name}: ${code}`, async () => {
      const parent = await fakeParent((socket, message) => {
        if (message.kind === 'range-request') answer(socket, message.request);
      });
      await using pool = newPool({ silenceTimeout: 700 });
      const connection = await pool.connection({ host: '127.0.0.1', port: parent.port });
      expect(await codeOf(connection.fetch(requestOf(task, { first: 0, count: 4 })))).toBe(code);
      expect(connection.usable).toBe(false);
      parent.server.close();
    });
  }

  it('stops inside a gathered frame: what has come is handed over, and the rest goes on in its place', async () => {
    const sent = task.content.subarray(0, 16 * BLOCK_LENGTH);
    const first = 5 * BLOCK_LENGTH + 777;
    let goOn = (): void => {};
    const parent = await fakeParent((socket, message) => {
      if (message.kind !== 'range-request') return;
      const { request, run } = message;
      socket.write(encodePacket({ kind: 'range-data', request, run, bytes: sent.length }));
      socket.write(sent.subarray(0, first));
      goOn = () => {
        socket.write(sent.subarray(first));
        socket.write(encodePacket({ kind: 'range-end', request }));
      };
    });
    await using pool = newPool();
    const connection = await pool.connection({ host: '127.0.0.1', port: parent.port });
    const parts: { readonly run: BlockRun; readonly data: Buffer }[] = [];
    const fetched = connection.fetch(
      requestOf(
        task,
        { first: 0, count: 16 },
        {
          gather: true,
          onBlocks: async (run, data) => {
            // The memory is lent: the bytes that go on coming meanwhile must not get into it.
            if (parts.length === 0) goOn();
            await pause(30);
            parts.push({ run, data: Buffer.from(data) });
          },
        },
      ),
    );
    await fetched;
    parent.server.close();
    expect(parts[0]?.run.count).toBeLessThanOrEqual(5);
    expect(parts.reduce((count, { run }) => count + run.count, 0)).toBe(16);
    expect(Buffer.concat(parts.map(({ data }) => data)).equals(sent)).toBe(true);
  });

  it('a parent that is not there is unavailable', async () => {
    const server = await serve();
    await server[Symbol.asyncDispose]();
    await using pool = newPool();
    expect(await codeOf(pool.connection(server.address))).toBe('unavailable');
  });

  it('a connection that broke is opened again', async () => {
    await using server = await serve({ firstRequestTimeout: 50 });
    await using pool = newPool();
    const first = await pool.connection(server.address);
    while (first.usable) await pause(5);
    const second = await pool.connection(server.address);
    await second.fetch(requestOf(task, { first: 0, count: 1 }));
    expect(second).not.toBe(first);
  });
});

describe('children that misbehave', () => {
  /** Everything that a raw child gets until the server closes. */
  function talk(server: PieceServer, bytes: Buffer | string): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      const chunks: Buffer[] = [];
      const socket = connect(server.address.port, '127.0.0.1', () => socket.write(bytes));
      socket.on('data', (chunk: Buffer) => chunks.push(chunk));
      socket.on('error', reject);
      socket.on('close', () => resolve(Buffer.concat(chunks)));
    });
  }

  it('gets an Error for bytes that are no request', async () => {
    await using server = await serve();
    const answer = decodePacket(await talk(server, 'GET / HTTP/1.1\r\n\r\n'));
    expect(answer?.message).toMatchObject({ kind: 'error', code: 1 });
  });

  it('cannot harm others with mutated requests', async () => {
    await using server = await serve({ firstRequestTimeout: 200, idleTimeout: 200 });
    const { id: taskId, pieceLength } = task.description;
    const flags = { wantDigests: true, fetchMissing: true };
    const requests = Buffer.concat([
      encodePacket({ kind: 'range-request', request: 1, taskId, pieceLength, run: { first: 0, count: 3 }, ...flags }),
      encodePacket({ kind: 'cancel-range', request: 1 }),
      encodePacket({ kind: 'range-request', request: 2, taskId, pieceLength, run: { first: 5, count: 1 }, ...flags }),
    ]);
    const edits = fc.array(fc.tuple(fc.nat({ max: requests.length - 1 }), fc.nat({ max: 255 })), { maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(fc.array(edits, { minLength: 10, maxLength: 10 }), async (many) => {
        const mutated = many.map((one) => {
          const bytes = Buffer.from(requests);
          for (const [at, value] of one) bytes[at] = value;
          return talk(server, bytes).catch(() => Buffer.alloc(0));
        });
        // Each of these connections is closed by the server, at the latest when it is idle.
        await Promise.all(mutated);
      }),
      { numRuns: 15 },
    );
    await using pool = newPool();
    await (await pool.connection(server.address)).fetch(requestOf(task, { first: 0, count: 3 }));
    while (task.leases > 0) await pause(5);
  });

  it('is cut when it sends nothing', async () => {
    await using server = await serve({ firstRequestTimeout: 50 });
    expect(await talk(server, '')).toHaveLength(0);
  });

  it('is cut when it does not read', async () => {
    const large = new FileTask(directory, 64 * MIB, 64 * MIB);
    await using server = await serve({ sendTimeout: 300 }, { find: () => large });
    const run = { first: 0, count: large.geometry.blockCount };
    const { id: taskId, pieceLength } = large.description;
    const socket = connect(server.address.port, '127.0.0.1');
    socket.pause();
    socket.on('error', () => {});
    socket.write(
      encodePacket({
        kind: 'range-request',
        request: 1,
        taskId,
        pieceLength,
        run,
        wantDigests: false,
        fetchMissing: false,
      }),
    );
    while (server.connections === 0) await pause(5);
    while (server.connections > 0) await pause(20);
    socket.destroy();
    while (large.leases > 0) await pause(5);
    large.close();
  });

  it('is refused beyond the limit of connections', async () => {
    await using server = await serve({ maxConnections: 1 });
    const held = connect(server.address.port, '127.0.0.1');
    while (server.connections === 0) await pause(5);
    expect(await talk(server, '')).toHaveLength(0);
    held.destroy();
  });
});

describe("upstream's protocol", () => {
  it('brings a piece with its digest, one request a connection', async () => {
    await using server = await serve();
    for (let number = 0; number < task.geometry.pieceCount; number++) {
      const range = task.geometry.pieceRange(number);
      const piece = await fetchUpstreamPiece(server.address, {
        taskId: task.description.id,
        piece: number,
        range,
        signal: new AbortController().signal,
      });
      expect(piece.content.equals(task.content.subarray(range.start, range.end))).toBe(true);
      expect(piece.verified).toBe(true);
      expect(piece.crc32).toBe(await task.pieceCrc32(number));
    }
    while (server.connections > 0) await pause(5);
    expect(task.leases).toBe(0);
  });

  it('answers a piece that is not held, and the families that it has not, with not-found', async () => {
    const partial = new FileTask(directory, 4 * MIB, 4 * MIB, false);
    await using server = await serve({}, { find: () => partial });
    const request = { taskId: partial.description.id, piece: 0, range: { start: 0, end: 4 * MIB } };
    const { signal } = new AbortController();
    expect(await codeOf(fetchUpstreamPiece(server.address, { ...request, signal }))).toBe('not-found');
    partial.close();
  });

  it('refuses an answer of another length or digest', async () => {
    const range = { start: 0, end: 1000 };
    const wrong = async (length: number, digest: string) => {
      const parent = await fakeParent((socket) => {
        const answer = { kind: 'piece-content', family: 'standard', piece: 0, offset: 0, length, digest } as const;
        socket.write(encodePacket({ ...answer, parentId: '', trafficType: 1, cost: 0, createdAt: 0 }));
        socket.write(Buffer.alloc(length));
      });
      const { signal } = new AbortController();
      const address = { host: '127.0.0.1', port: parent.port };
      const code = await codeOf(fetchUpstreamPiece(address, { taskId: task.description.id, piece: 0, range, signal }));
      parent.server.close();
      return code;
    };
    expect(await wrong(999, 'crc32:1')).toBe('data-loss');
    expect(await wrong(1000, 'crc32:1')).toBe('data-loss');
    expect(await wrong(1000, '')).toBe('resolved');
  });
});
