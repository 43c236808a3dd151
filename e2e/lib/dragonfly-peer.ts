import { connect, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { crc32 } from 'node:zlib';
import {
  createClient,
  createServer,
  dfdaemonV2,
  MessageQueue,
  type RpcServer,
  type Sent,
  type schedulerV2,
  serve,
} from '@pantala/api';
import { defaultPieceLength, taskId } from '@pantala/base';
import { type Content, loopbackPlace, until, within } from '@pantala/testkit';
import { schedulerClient } from './announced-peer.ts';
import type { Served, Stage } from './stage.ts';

const PIECES_PORT = 4005;
const GRPC_PORT = 4000;
const HEADER_LENGTH = 6;
const DOWNLOAD_PIECE = 0;
const PIECE_CONTENT = 1;
const ERROR = 255;
/** Header, task id and number. */
const REQUEST_LENGTH = HEADER_LENGTH + 64 + 4;
const DEADLINE = 60_000;

/** A piece as SyncPieces tells of it. */
export interface ToldPiece {
  readonly number: number;
  readonly offset: bigint;
  readonly length: bigint;
}

export interface DragonflyPeerOptions {
  /** What it gives instead of the true bytes of a piece; the CRC-32 is that of what it gives. */
  readonly give?: (piece: number, bytes: Buffer) => Buffer;
  /** Announces a CRC-32 that does not fit. */
  readonly wrongSum?: boolean;
  /** What SyncPieces says of a piece instead of the truth. */
  readonly tell?: (truth: ToldPiece) => ToldPiece;
  /** It has none of the pieces that it says it has. */
  readonly lacksAll?: boolean;
  /** Awaited before a piece is given. */
  readonly gate?: (piece: number) => Promise<void>;
}

/**
 * A peer that speaks nothing but Dragonfly's protocol, written from its description alone: it is announced to the
 * scheduler, holds one content, says so by SyncPieces, and gives pieces over TCP, one for each connection.
 */
export class DragonflyPeer implements AsyncDisposable {
  readonly address = loopbackPlace().address;
  readonly taskId: string;
  readonly #content: Content;
  readonly #pieceLength: number;
  readonly #options: DragonflyPeerOptions;
  readonly #announcement = new MessageQueue<Sent<typeof schedulerV2.AnnouncePeerRequestSchema>>();
  readonly #sockets = new Set<Socket>();
  #rpc: RpcServer | undefined;
  #tcp: Server | undefined;
  #scheduler: ReturnType<typeof schedulerClient> | undefined;
  #given = 0;

  private constructor(served: Served, options: DragonflyPeerOptions) {
    this.taskId = taskId({ url: served.url });
    this.#content = served.content;
    this.#pieceLength = defaultPieceLength(served.content.length);
    this.#options = options;
  }

  static async start(stage: Stage, served: Served, options: DragonflyPeerOptions = {}): Promise<DragonflyPeer> {
    const peer = new DragonflyPeer(served, options);
    await peer.#listen();
    await peer.#announce(stage, served.url);
    return peer;
  }

  /** Pieces that were given to their end. */
  get given(): number {
    return this.#given;
  }

  get pieceCount(): number {
    return Math.ceil(this.#content.length / this.#pieceLength);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#announcement.end();
    this.#scheduler?.[Symbol.dispose]();
    for (const socket of this.#sockets) socket.destroy();
    this.#tcp?.close();
    await this.#rpc?.stop(0);
  }

  #piece(number: number): { readonly offset: number; readonly bytes: Buffer } {
    const offset = number * this.#pieceLength;
    return { offset, bytes: this.#content.slice(offset, Math.min(this.#content.length, offset + this.#pieceLength)) };
  }

  async #listen(): Promise<void> {
    const { address: ip } = this;
    const held = (number: number): number =>
      Math.min(this.#pieceLength, this.#content.length - number * this.#pieceLength);
    const pieceLength = this.#pieceLength;
    const tell = this.#options.tell ?? ((truth: ToldPiece) => truth);
    this.#rpc = await createServer({
      address: { host: ip, port: GRPC_PORT },
      services: [
        serve(dfdaemonV2.DfdaemonUpload, {
          async *syncPieces({ interestedPieceNumbers }) {
            for (const number of interestedPieceNumbers) {
              const truth = { number, offset: BigInt(number * pieceLength), length: BigInt(held(number)) };
              yield { ...tell(truth), ip, tcpPort: PIECES_PORT };
            }
          },
        }),
      ],
    });
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#tcp = createTcpServer((socket) => {
      this.#sockets.add(socket);
      socket.on('error', () => socket.destroy()).on('close', () => this.#sockets.delete(socket));
      void this.#answer(socket).catch(() => socket.destroy());
    });
    this.#tcp.once('error', reject).listen({ host: ip, port: PIECES_PORT }, resolve);
    await promise;
  }

  async #answer(socket: Socket): Promise<void> {
    const request = await receive(socket, REQUEST_LENGTH);
    const number = request.readUInt32BE(HEADER_LENGTH + 64);
    await this.#options.gate?.(number);
    if (this.#options.lacksAll === true) {
      socket.end(encodeRefusal('no such piece'));
      return;
    }
    const { offset, bytes } = this.#piece(number);
    const given = this.#options.give?.(number, Buffer.from(bytes)) ?? bytes;
    const sum = this.#options.wrongSum === true ? 1 : crc32(given);
    socket.end(Buffer.concat([encodePiece(number, offset, given.length, `crc32:${sum}`), given]));
    this.#given++;
  }

  /** Registers, fetches "from the origin", and finishes, as Dragonfly's peer does. */
  async #announce(stage: Stage, url: string): Promise<void> {
    this.#scheduler = schedulerClient(stage);
    const id = `${this.address}-dragonfly`;
    const host = { id, hostname: 'dragonfly', ip: this.address, port: GRPC_PORT, downloadPort: PIECES_PORT, type: 0 };
    await this.#scheduler.announceHost({ host: { ...host, os: 'linux', platform: 'debian', kernelVersion: '6' } });
    const ids = { hostId: id, taskId: this.taskId, peerId: `${id}-peer` };
    const say = (request: NonNullable<Sent<typeof schedulerV2.AnnouncePeerRequestSchema>['request']>): void =>
      this.#announcement.push({ ...ids, request });
    const answers = this.#scheduler.announcePeer(this.#announcement)[Symbol.asyncIterator]();
    const download = {
      url,
      requestHeader: {},
      actualContentLength: BigInt(this.#content.length),
      actualPieceLength: BigInt(this.#pieceLength),
      actualPieceCount: BigInt(this.pieceCount),
    };
    say({ case: 'registerPeerRequest', value: { download } });
    const answer = await within(DEADLINE, 'the scheduler answers', answers.next());
    const kind = answer.done === true ? undefined : answer.value.response.case;
    if (kind !== 'needBackToSourceResponse') throw new Error(`leave to ask the origin was expected, not ${kind}`);
    say({ case: 'downloadPeerBackToSourceStartedRequest', value: {} });
    for (let number = 0; number < this.pieceCount; number++) {
      const { offset, bytes } = this.#piece(number);
      const piece = {
        number,
        offset: BigInt(offset),
        length: BigInt(bytes.length),
        digest: `crc32:${crc32(bytes)}`,
        cost: { seconds: 0n, nanos: 1_000_000 },
        createdAt: { seconds: BigInt(Math.floor(Date.now() / 1000)), nanos: 0 },
      };
      say({ case: 'downloadPieceBackToSourceFinishedRequest', value: { piece } });
    }
    say({ case: 'downloadPeerBackToSourceFinishedRequest', value: {} });
    await until(async () => (await this.#scheduler?.statPeer(ids).catch(() => undefined))?.state === 'Succeeded', {
      what: 'the scheduler knows the Dragonfly peer',
    });
  }
}

/** Fetches pieces as a Dragonfly child does: SyncPieces for where they are, a TCP connection for each. */
export async function downloadAsDragonfly(parent: string, id: string, pieces: readonly number[]): Promise<Buffer> {
  using client = createClient(dfdaemonV2.DfdaemonUpload, { host: parent, port: GRPC_PORT });
  const parts = new Map<number, Buffer>();
  const request = { hostId: '127.0.0.1-child', taskId: id, interestedPieceNumbers: [...pieces] };
  for await (const { number, length, ip, tcpPort } of client.syncPieces(request, { deadline: DEADLINE })) {
    parts.set(number, await downloadPiece({ host: ip, port: tcpPort ?? 0 }, id, number, Number(length)));
  }
  return Buffer.concat([...parts].sort(([a], [b]) => a - b).map(([, part]) => part));
}

async function downloadPiece(
  address: { readonly host: string; readonly port: number },
  id: string,
  number: number,
  length: number,
): Promise<Buffer> {
  const socket = connect(address);
  const head = Buffer.alloc(REQUEST_LENGTH);
  head.writeUInt8(7, 0);
  head.writeUInt8(DOWNLOAD_PIECE, 1);
  head.writeUInt32BE(REQUEST_LENGTH - HEADER_LENGTH, 2);
  head.write(id, HEADER_LENGTH, 'ascii');
  head.writeUInt32BE(number, HEADER_LENGTH + 64);
  socket.write(head);
  const parts: Buffer[] = [];
  // One request for each connection: the end of the answer is the end of the stream.
  for await (const part of socket as AsyncIterable<Buffer>) parts.push(part);
  const answer = Buffer.concat(parts);
  const tag = answer.readUInt8(1);
  if (tag !== PIECE_CONTENT) throw new Error(`a packet of tag ${tag}: ${answer.toString('latin1', HEADER_LENGTH)}`);
  const metadata = HEADER_LENGTH + 4;
  const start = metadata + answer.readUInt32BE(HEADER_LENGTH);
  const content = answer.subarray(start);
  const digestLength = answer.readUInt32BE(metadata + 20);
  const digest = answer.toString('utf8', metadata + 24, metadata + 24 + digestLength);
  if (answer.readUInt32BE(metadata) !== number) throw new Error('another piece came');
  if (content.length !== length) throw new Error(`piece ${number}: ${content.length} bytes instead of ${length}`);
  if (digest !== `crc32:${crc32(content)}`) throw new Error(`piece ${number} does not have the digest ${digest}`);
  return content;
}

function encodePiece(number: number, offset: number, length: number, digest: string): Buffer {
  const metadata = Buffer.alloc(4 + 8 + 8 + 4 + digest.length + 4 + 1 + 8 + 8);
  metadata.writeUInt32BE(number, 0);
  metadata.writeBigUInt64BE(BigInt(offset), 4);
  metadata.writeBigUInt64BE(BigInt(length), 12);
  metadata.writeUInt32BE(digest.length, 20);
  metadata.write(digest, 24);
  const head = Buffer.alloc(HEADER_LENGTH + 4);
  head.writeUInt8(7, 0);
  head.writeUInt8(PIECE_CONTENT, 1);
  head.writeUInt32BE(4 + metadata.length, 2);
  head.writeUInt32BE(metadata.length, HEADER_LENGTH);
  return Buffer.concat([head, metadata]);
}

/** Error, code "not found". */
function encodeRefusal(message: string): Buffer {
  const head = Buffer.from([7, ERROR, 0, 0, 0, 1 + message.length, 2]);
  return Buffer.concat([head, Buffer.from(message)]);
}

async function receive(socket: Socket, length: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let received = 0;
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  socket.on('data', (part: Buffer) => {
    parts.push(part);
    received += part.length;
    if (received >= length) resolve(Buffer.concat(parts));
  });
  socket.on('close', () => reject(new Error('no request came')));
  return promise;
}
