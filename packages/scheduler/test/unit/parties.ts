import {
  createClient,
  createServer,
  dfdaemonV2,
  MessageQueue,
  pantalaV1,
  type RpcServer,
  schedulerV2,
  serve,
} from '@pantala/api';
import { noMetrics, silentLogger } from '@pantala/base';
import { type RunningScheduler, type SchedulerOptions, startScheduler } from '../../src/index.ts';

export const TASK = 'b'.repeat(64);
export const PIECE_LENGTH = 4 * 1024 * 1024;

type Request = schedulerV2.AnnouncePeerRequest['request'];
type RequestInit = NonNullable<Parameters<typeof push>[1]>;

/** A scheduler of its own on a free port. */
export function start(options: SchedulerOptions = {}, port = 0): Promise<RunningScheduler> {
  return startScheduler(
    { ...options, listen: { host: '127.0.0.1', port } },
    { logger: silentLogger, metrics: noMetrics },
  );
}

export function schedulerClient(scheduler: RunningScheduler) {
  return createClient(schedulerV2.Scheduler, scheduler.address);
}

/** A host as a peer's process announces it. */
export async function announce(
  scheduler: RunningScheduler,
  id: string,
  more: { readonly type?: number; readonly port?: number } = {},
): Promise<void> {
  using client = schedulerClient(scheduler);
  const host = { id, hostname: id, ip: '127.0.0.1', port: 4000, downloadPort: 4005, type: 0, ...more };
  await client.announceHost({ host });
}

function push(queue: MessageQueue<object>, message: object): void {
  queue.push(message);
}

/** One download as a peer announces it, message by message. */
export class Download implements AsyncDisposable {
  readonly ids: { readonly hostId: string; readonly taskId: string; readonly peerId: string };
  readonly #client: ReturnType<typeof schedulerClient>;
  readonly #requests = new MessageQueue<object>();
  readonly #responses: AsyncIterator<schedulerV2.AnnouncePeerResponse>;

  constructor(scheduler: RunningScheduler, hostId: string, taskId = TASK) {
    this.ids = { hostId, taskId, peerId: `${hostId}-peer` };
    this.#client = schedulerClient(scheduler);
    this.#responses = this.#client.announcePeer(this.#requests)[Symbol.asyncIterator]();
  }

  say(request: RequestInit | { readonly case: Request['case']; readonly value: object }): void {
    push(this.#requests, { ...this.ids, request });
  }

  register(download: object = {}): void {
    this.say({
      case: 'registerPeerRequest',
      value: {
        download: {
          url: 'http://origin.test/blob',
          requestHeader: { authorization: 'Bearer secret' },
          actualContentLength: BigInt(3 * PIECE_LENGTH),
          actualPieceLength: BigInt(PIECE_LENGTH),
          actualPieceCount: 3n,
          ...download,
        },
      },
    });
  }

  piece(number: number, parentId?: string): void {
    const piece = { number, offset: BigInt(number * PIECE_LENGTH), length: BigInt(PIECE_LENGTH), digest: 'crc32:1' };
    this.say(
      parentId === undefined
        ? { case: 'downloadPieceBackToSourceFinishedRequest', value: { piece } }
        : { case: 'downloadPieceFinishedRequest', value: { piece: { ...piece, parentId, trafficType: 1 } } },
    );
  }

  /** The next answer; undefined once the scheduler ended the stream with OK. */
  async answer(): Promise<schedulerV2.AnnouncePeerResponse['response'] | undefined> {
    const next = await this.#responses.next();
    return next.done === true ? undefined : next.value.response;
  }

  /** Ids of the parents in the next answer. */
  async parents(): Promise<string[]> {
    const answer = await this.answer();
    if (answer?.case !== 'normalTaskResponse') throw new Error(`parents were expected, not ${answer?.case}`);
    return answer.value.candidateParents.map(({ id }) => id);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#requests.end();
    await this.#responses.return?.();
    this.#client[Symbol.dispose]();
  }
}

/** A Pantala host's stream. */
export class HostStream implements AsyncDisposable {
  readonly #hostId: string;
  readonly #client: ReturnType<typeof createClient<typeof pantalaV1.Scheduler>>;
  readonly #requests = new MessageQueue<object>();
  readonly #responses: AsyncIterator<pantalaV1.ConverseResponse>;

  constructor(scheduler: RunningScheduler, hostId: string) {
    this.#hostId = hostId;
    this.#client = createClient(pantalaV1.Scheduler, scheduler.address);
    this.#responses = this.#client.converse(this.#requests)[Symbol.asyncIterator]();
    push(this.#requests, { hostId });
  }

  say(request: { readonly case: pantalaV1.ConverseRequest['request']['case']; readonly value: object }): void {
    push(this.#requests, { hostId: this.#hostId, request });
  }

  /** The next answer, but for news of who else is there. */
  async answer(): Promise<pantalaV1.ConverseResponse['response'] | undefined> {
    for (;;) {
      const next = await this.#responses.next();
      if (next.done === true) return undefined;
      if (next.value.response.case !== 'company') return next.value.response;
    }
  }

  /** Waits for the next news of who else is there, past other answers. */
  async alone(): Promise<boolean> {
    for (;;) {
      const next = await this.#responses.next();
      if (next.done === true) throw new Error('the stream has ended');
      if (next.value.response.case === 'company') return next.value.response.value.alone;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#requests.end();
    await this.#responses.return?.();
    this.#client[Symbol.dispose]();
  }
}

/** A seed's upload service: notes what it is asked for, and answers when it is told to. */
export class SeedServer implements AsyncDisposable {
  readonly asked = new MessageQueue<dfdaemonV2.DownloadTaskRequest>();
  readonly #server: RpcServer;

  private constructor(server: RpcServer) {
    this.#server = server;
  }

  static async start(fail?: (asked: number) => Error | undefined): Promise<SeedServer> {
    const holder: { seed?: SeedServer } = {};
    let count = 0;
    const server = await createServer({
      address: { host: '127.0.0.1', port: 0 },
      services: [
        serve(dfdaemonV2.DfdaemonUpload, {
          async *downloadTask(request) {
            holder.seed?.asked.push(request);
            const error = fail?.(++count);
            if (error !== undefined) throw error;
            yield { hostId: 'seed', taskId: TASK, peerId: 'seed-peer' };
          },
        }),
      ],
    });
    holder.seed = new SeedServer(server);
    return holder.seed;
  }

  get port(): number {
    return 'port' in this.#server.address ? this.#server.address.port : 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.stop(100);
  }
}
