import { once } from 'node:events';
import { createServer as createTcpServer, type Server, type Socket } from 'node:net';
import {
  createClient,
  createServer,
  MessageQueue,
  pantalaV1,
  type RpcServer,
  type Sent,
  type schedulerV2,
  serve,
} from '@pantala/api';
import { type BlockRun, blockDigest, defaultPieceLength, Geometry, pieceDigest, taskId } from '@pantala/base';
import { type Content, loopbackPlace, until } from '@pantala/testkit';
import { schedulerClient } from './announced-peer.ts';
import type { Served, Stage } from './stage.ts';

const PIECES_PORT = 4005;
const GRPC_PORT = 4000;
const SCHEDULER_PORT = 8002;
const HEADER_LENGTH = 6;
const RANGE_REQUEST = 128;
const DIGESTS = 129;
const DATA = 130;
const END = 131;
const ERROR = 132;

/** What a peer asks the liar for. */
export interface AskedRange {
  readonly request: number;
  readonly run: BlockRun;
  readonly wantDigests: boolean;
}

/** TaskNews of `pantala.v1`. */
export interface News {
  readonly contentLength: bigint;
  readonly pieceLength: bigint;
  readonly held: BlockRun[];
  readonly assigned?: BlockRun[];
  readonly deferred?: BlockRun[];
}

/** In which way a peer lies; everything that is left out is the truth. */
export interface Lie {
  /** What it tells its watchers instead of the truth. */
  readonly news?: (truth: News, geometry: Geometry) => News;
  /** The bytes that answer a request for a range; nothing at all for undefined. */
  readonly answer?: (asked: AskedRange, liar: LyingPeer) => Buffer | undefined;
  /** The content that it has instead of the true one: its digests are those of what it gives. */
  readonly content?: Content;
  readonly describe?: Sent<typeof pantalaV1.DescribeResponseSchema>;
}

/**
 * A peer that speaks `pantala.v1` and the piece protocol's own tags, written by hand from docs/protocol.md: it is
 * announced to the scheduler as holder of a whole content, and lies.
 */
export class LyingPeer implements AsyncDisposable {
  readonly address = loopbackPlace().address;
  readonly taskId: string;
  readonly geometry: Geometry;
  readonly #lie: Lie;
  readonly #content: Content;
  readonly #requests = new MessageQueue<Sent<typeof pantalaV1.ConverseRequestSchema>>();
  readonly #sockets = new Set<Socket>();
  readonly #resources = new AsyncDisposableStack();
  #tcp: Server | undefined;
  #asked = 0;

  private constructor(served: Served, lie: Lie) {
    this.#lie = lie;
    this.#content = lie.content ?? served.content;
    this.taskId = taskId({ url: served.url });
    this.geometry = new Geometry(served.content.length, defaultPieceLength(served.content.length));
  }

  static async start(stage: Stage, served: Served, lie: Lie): Promise<LyingPeer> {
    const peer = new LyingPeer(served, lie);
    await peer.#listen();
    await peer.#announce(stage, served.url);
    return peer;
  }

  /** Ranges that others asked of it. */
  get asked(): number {
    return this.#asked;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#requests.end();
    for (const socket of this.#sockets) socket.destroy();
    this.#tcp?.close();
    await this.#resources[Symbol.asyncDispose]();
  }

  bytesOf(run: BlockRun): Buffer {
    const { start, end } = this.geometry.runRange(run);
    return Buffer.from(this.#content.slice(start, end));
  }

  /** Digests of the blocks of a piece, one after the other. */
  digestsOf(piece: number): Buffer {
    const { first, count } = this.geometry.pieceBlocks(piece);
    const digests = Array.from({ length: count }, (_, i) => blockDigest(this.bytesOf({ first: first + i, count: 1 })));
    return Buffer.concat(digests);
  }

  /** An honest answer, of which each part may be replaced. */
  answerOf(
    { request, run, wantDigests }: AskedRange,
    parts: {
      readonly digests?: Buffer;
      readonly claimed?: BlockRun;
      readonly bytes?: number;
      readonly data?: Buffer;
    } = {},
  ): Buffer {
    const piece = this.geometry.pieceOfBlock(run.first);
    const data = parts.data ?? this.bytesOf(run);
    const { first, count } = parts.claimed ?? run;
    const digests = parts.digests ?? this.digestsOf(piece);
    return Buffer.concat([
      ...(wantDigests ? [packet(DIGESTS, [request, piece], digests)] : []),
      packet(DATA, [request, first, count, parts.bytes ?? data.length]),
      data,
      packet(END, [request]),
    ]);
  }

  async #listen(): Promise<void> {
    const { address: host, geometry } = this;
    const lie = this.#lie;
    const truth: News = {
      contentLength: BigInt(geometry.contentLength),
      pieceLength: BigInt(geometry.pieceLength),
      held: [{ first: 0, count: geometry.blockCount }],
    };
    const rpc: RpcServer = await createServer({
      address: { host, port: GRPC_PORT },
      services: [
        serve(pantalaV1.Peer, {
          describe: async () => ({
            tcpPort: PIECES_PORT,
            blockLength: 16_384,
            seed: false,
            hostId: host,
            ...lie.describe,
          }),
          async *watchTask(_, { signal }) {
            yield lie.news?.(truth, geometry) ?? truth;
            if (!signal.aborted) await once(signal, 'abort');
          },
        }),
      ],
    });
    this.#resources.defer(() => rpc.stop(0));
    this.#tcp = createTcpServer((socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => socket.destroy()).on('close', () => this.#sockets.delete(socket));
      void this.#serve(socket).catch(() => socket.destroy());
    });
    this.#tcp.listen({ host, port: PIECES_PORT });
    await once(this.#tcp, 'listening');
  }

  async #serve(socket: Socket): Promise<void> {
    let bytes = Buffer.alloc(0);
    for await (const part of socket as AsyncIterable<Buffer>) {
      bytes = Buffer.concat([bytes, part]);
      while (bytes.length >= HEADER_LENGTH && bytes.length >= HEADER_LENGTH + bytes.readUInt32BE(2)) {
        const value = bytes.subarray(HEADER_LENGTH, HEADER_LENGTH + bytes.readUInt32BE(2));
        if (bytes.readUInt8(1) === RANGE_REQUEST) this.#answer(socket, value);
        bytes = bytes.subarray(HEADER_LENGTH + value.length);
      }
    }
  }

  #answer(socket: Socket, value: Buffer): void {
    this.#asked++;
    const asked = {
      request: value.readUInt32BE(0),
      run: { first: value.readUInt32BE(76), count: value.readUInt32BE(80) },
      wantDigests: (value.readUInt8(84) & 1) === 1,
    };
    const answer = this.#lie.answer === undefined ? this.answerOf(asked) : this.#lie.answer(asked, this);
    if (answer !== undefined) socket.write(answer);
  }

  async #announce(stage: Stage, url: string): Promise<void> {
    const { address, geometry } = this;
    const scheduler = this.#resources.use(schedulerClient(stage));
    const host = { id: address, hostname: 'liar', ip: address, port: GRPC_PORT, downloadPort: PIECES_PORT, type: 0 };
    await scheduler.announceHost({ host });
    const place = { host: stage.swarm.scheduler.place.address, port: SCHEDULER_PORT };
    const stream = this.#resources.use(createClient(pantalaV1.Scheduler, place));
    const answers = stream.converse(this.#requests);
    this.#resources.defer(async () => void (await answers.return?.()));
    void (async () => {
      for await (const _ of answers);
    })().catch(() => {});
    const pieces = Array.from({ length: geometry.pieceCount }, (_, number) => ({
      number,
      digest: pieceDigest(this.digestsOf(number)),
    }));
    const task = {
      taskId: this.taskId,
      contentLength: BigInt(geometry.contentLength),
      pieceLength: BigInt(geometry.pieceLength),
      blockCount: geometry.blockCount,
      url,
      digest: `sha256:${this.taskId}`,
      peerId: `${address}-liar`,
      pieces,
    };
    this.#requests.push({ hostId: address });
    this.#requests.push({
      hostId: address,
      request: { case: 'heldTasks', value: { tasks: [task], completeList: true } },
    });
    await until(() => this.#isKnown(scheduler), { what: 'the scheduler believes the liar' });
  }

  async #isKnown(scheduler: ReturnType<typeof createClient<typeof schedulerV2.Scheduler>>): Promise<boolean> {
    const peer = { hostId: this.address, taskId: this.taskId, peerId: `${this.address}-liar` };
    return scheduler.statPeer(peer).then(
      () => true,
      () => false,
    );
  }
}

/** A packet of the piece protocol: numbers of 32 bits and what follows them. */
function packet(tag: number, numbers: readonly number[], rest: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(HEADER_LENGTH + 4 * numbers.length);
  head.writeUInt8(tag, 1);
  head.writeUInt32BE(4 * numbers.length + rest.length, 2);
  for (const [index, number] of numbers.entries()) head.writeUInt32BE(number, HEADER_LENGTH + 4 * index);
  return Buffer.concat([head, rest]);
}

/** "I do not have these blocks." */
export function refusal({ request }: AskedRange): Buffer {
  return packet(ERROR, [request], Buffer.from('\u0002not here', 'latin1'));
}
