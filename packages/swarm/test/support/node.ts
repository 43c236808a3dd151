import { createHash } from 'node:crypto';
import { createServer, dfdaemonV2, pantalaV1, type RpcServer, serve } from '@pantala/api';
import { type ByteRange, type LogFields, type Logger, lengthOf, noMetrics, PantalaError } from '@pantala/base';
import { openStore, type TaskStore } from '@pantala/store';
import { createDownloader, type DownloadRequest, type OpenTask, type ServerAddress, type Swarm } from '@pantala/swarm';
import { Scratch } from '@pantala/testkit';
import { createOrigin, type PieceServer, startPieceServer } from '@pantala/transfer';

export interface LogLine {
  readonly message: string;
  readonly fields: LogFields;
}

/** A logger that keeps its lines. */
export function keepingLogger(lines: LogLine[], fields: LogFields = {}): Logger {
  const keep = (message: string, more: LogFields = {}): void =>
    void lines.push({ message, fields: { ...fields, ...more } });
  return {
    debug: keep,
    info: keep,
    warn: keep,
    error: keep,
    child: (more) => keepingLogger(lines, { ...fields, ...more }),
  };
}

export interface NodeOptions {
  readonly name: string;
  readonly seed?: boolean;
  readonly schedulers?: readonly ServerAddress[];
  readonly staticSeeds?: readonly ServerAddress[];
}

/** A peer as far as the swarm is concerned: store, origin, downloads, and both ports for other peers. */
export class Node implements AsyncDisposable {
  readonly store: TaskStore;
  readonly swarm: Swarm;
  readonly lines: LogLine[];
  readonly address: ServerAddress;
  readonly #pieces: PieceServer;
  readonly #rpc: RpcServer;
  readonly #resources: AsyncDisposableStack;
  #killed = false;

  private constructor(
    store: TaskStore,
    swarm: Swarm,
    lines: LogLine[],
    pieces: PieceServer,
    rpc: RpcServer,
    resources: AsyncDisposableStack,
  ) {
    this.store = store;
    this.swarm = swarm;
    this.lines = lines;
    this.#pieces = pieces;
    this.#rpc = rpc;
    this.#resources = resources;
    const { address } = rpc;
    if ('path' in address) throw new Error('a TCP address was expected');
    this.address = address;
  }

  static async start(options: NodeOptions): Promise<Node> {
    await using resources = new AsyncDisposableStack();
    const seed = options.seed ?? false;
    const lines: LogLine[] = [];
    const logger = keepingLogger(lines, { node: options.name });
    const scratch = resources.use(Scratch.create(`swarm-${options.name}`));
    const store = resources.use(await openStore({ directory: scratch.path }));
    const origin = resources.use(createOrigin({}, { metrics: noMetrics }));
    let swarm: Swarm | undefined;
    const running = (): Swarm => {
      if (swarm === undefined) throw new PantalaError('unavailable', 'starting');
      return swarm;
    };
    const pieces = await startPieceServer(
      { host: '127.0.0.1', port: 0 },
      {
        source: {
          find: (id) => store.get(id),
          ...(seed ? { fetchMissing: (id, run, signal) => running().fetchMissing(id, run, signal) } : {}),
        },
        logger,
        metrics: noMetrics,
      },
    );
    const rpc = await createServer({
      address: { host: '127.0.0.1', port: 0 },
      services: peerServices(running, store, options.name, seed, pieces.address.port),
    });
    const { address } = rpc;
    if ('path' in address) throw new Error('a TCP address was expected');
    swarm = createDownloader(
      {
        host: { ip: '127.0.0.1', hostname: options.name, seed, port: address.port, piecePort: pieces.address.port },
        schedulers: options.schedulers ?? [],
        staticSeeds: options.staticSeeds ?? [],
      },
      { store, origin, logger, metrics: noMetrics },
    );
    return new Node(store, swarm, lines, pieces, rpc, resources.move());
  }

  /** Opens a task and reads a range of it (all of it by default). */
  async read(request: Partial<DownloadRequest> & { readonly url: string }, range?: ByteRange): Promise<Reading> {
    const signal = AbortSignal.timeout(50_000);
    const full: DownloadRequest = { requestHeaders: {}, reader: 'local', ...request };
    const task = await this.swarm.open(full, { signal, ...(range === undefined ? {} : { range }) });
    return await readRange(task, range ?? { start: 0, end: task.task.geometry.contentLength }, signal);
  }

  /** As a crash looks to others: both ports are gone at once. */
  async kill(): Promise<void> {
    if (this.#killed) return;
    this.#killed = true;
    await this.#pieces[Symbol.asyncDispose]();
    await this.#rpc.stop(0);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.swarm[Symbol.asyncDispose]();
    await this.kill();
    await this.#resources.disposeAsync();
  }
}

export interface Reading {
  readonly task: OpenTask;
  readonly bytes: number;
  readonly sha256: string;
}

export async function readRange(task: OpenTask, range: ByteRange, signal: AbortSignal): Promise<Reading> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const part of task.extents(range, { signal })) {
    for (let start = part.start; start < part.end; start += 1024 * 1024) {
      const data = await task.task.read({ start, end: Math.min(part.end, start + 1024 * 1024) });
      hash.update(data);
      bytes += data.length;
    }
  }
  if (bytes !== lengthOf(range)) throw new Error(`read ${bytes} of ${lengthOf(range)} bytes`);
  return { task, bytes, sha256: hash.digest('hex') };
}

function peerServices(swarm: () => Swarm, store: TaskStore, name: string, seed: boolean, tcpPort: number) {
  const hostId = `127.0.0.1-${name}${seed ? '-seed' : ''}`;
  return [
    serve(pantalaV1.Peer, {
      describe: async () => ({ tcpPort, blockLength: 16_384, seed, hostId }),
      watchTask: ({ taskId, hostId: watcher, bulk }, { signal }) =>
        withLongs(swarm().watch(taskId, { hostId: watcher, bulk, signal })),
      openTask: async ({ url, requestHeader }, { signal }) => {
        const open = await swarm().open({ url, requestHeaders: requestHeader, reader: 'peer' }, { signal });
        const { contentLength, pieceLength } = open.task.geometry;
        return { contentLength: BigInt(contentLength), pieceLength: BigInt(pieceLength) };
      },
    }),
    serve(dfdaemonV2.DfdaemonUpload, {
      async *downloadTask({ download }, { signal }) {
        if (download === undefined) throw new PantalaError('invalid-argument', 'nothing to download');
        const { url, requestHeader } = download;
        const request: DownloadRequest = {
          url,
          requestHeaders: requestHeader,
          reader: 'peer',
          needBackToSource: download.needBackToSource,
        };
        const open = await swarm().open(request, { signal });
        const { contentLength } = open.task.geometry;
        const taskId = open.task.description.id;
        yield {
          hostId,
          taskId,
          peerId: name,
          response: { case: 'downloadTaskStartedResponse' as const, value: { contentLength: BigInt(contentLength) } },
        };
        const range =
          download.range === undefined
            ? { start: 0, end: contentLength }
            : { start: Number(download.range.start), end: Number(download.range.start + download.range.length) };
        for await (const _part of open.extents(range, { signal }));
        if (store.get(taskId) === undefined) throw new PantalaError('not-found', 'gone');
      },
    }),
  ];
}

async function* withLongs(events: AsyncGenerator<Awaited<ReturnType<ReturnType<Swarm['watch']>['next']>>['value']>) {
  for await (const { contentLength, pieceLength, ...rest } of events) {
    yield { contentLength: BigInt(contentLength), pieceLength: BigInt(pieceLength), ...rest };
  }
}
