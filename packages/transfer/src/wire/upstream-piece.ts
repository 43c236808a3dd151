import { connect } from 'node:net';
import { type ByteRange, crc32, lengthOf, PantalaError, parseCrc32, type RateLimiter } from '@pantala/base';
import type { ParentAddress } from './contract.ts';
import type { PieceContent } from './messages.ts';
import { CONNECT_TIMEOUT, SILENCE_TIMEOUT } from './options.ts';
import { decodePacket, encodePacket, HEADER_LENGTH, MAX_METADATA_LENGTH } from './packet.ts';
import { errorFromWire } from './wire-error.ts';

export interface UpstreamPieceRequest {
  readonly taskId: string;
  readonly piece: number;
  /** Where the piece lies in the task (geometry.pieceRange). */
  readonly range: ByteRange;
  readonly signal: AbortSignal;
  /** Milliseconds. Default 2 s. */
  readonly connectTimeout?: number;
  /** Milliseconds without a byte. Default 10 s. */
  readonly silenceTimeout?: number;
  /** Bytes are paid here before the piece is asked for. */
  readonly limiter?: RateLimiter;
}

export interface UpstreamPiece {
  readonly content: Buffer;
  /** CRC-32 of the content. */
  readonly crc32: number;
  /** False where the parent gave no digest (upstream's imported pieces): nothing was compared. */
  readonly verified: boolean;
}

/** Header, metadata and the content that comes with them in the first read. */
const HEAD_LENGTH = HEADER_LENGTH + 4 + MAX_METADATA_LENGTH;

/**
 * Fetches one piece from a Dragonfly parent by upstream's protocol: one connection, one request, one answer. Number,
 * offset, length and CRC-32 of the answer are checked; the content is received where it stays.
 *
 * @throws `not-found` when the parent lacks it; `data-loss` for an answer that does not fit; `unavailable`;
 *   `deadline-exceeded`; `cancelled`
 */
export async function fetchUpstreamPiece(
  address: ParentAddress,
  request: UpstreamPieceRequest,
): Promise<UpstreamPiece> {
  await request.limiter?.acquire(lengthOf(request.range), request.signal);
  const receiver = new PieceReceiver(address, request);
  const { promise, resolve, reject } = Promise.withResolvers<UpstreamPiece>();
  const socket = connect({
    host: address.host,
    port: address.port,
    noDelay: true,
    onread: {
      buffer: () => receiver.target(),
      callback: (length) => {
        socket.setTimeout(silenceTimeout);
        try {
          const piece = receiver.received(length);
          if (piece !== undefined) resolve(piece);
        } catch (error) {
          reject(error);
        }
        return true;
      },
    },
  });
  const { connectTimeout = CONNECT_TIMEOUT, silenceTimeout = SILENCE_TIMEOUT } = request;
  const broken = (error?: Error) =>
    reject(
      new PantalaError('unavailable', `${receiver.name} broke off: ${error?.message ?? 'closed'}`, { cause: error }),
    );
  const onAbort = () => reject(PantalaError.from(request.signal.reason));
  socket.setTimeout(connectTimeout);
  socket.once('connect', () => {
    socket.setTimeout(silenceTimeout);
    const { taskId, piece } = request;
    socket.write(encodePacket({ kind: 'download-piece', family: 'standard', taskId, piece }, piece & 0xff));
  });
  socket.once('timeout', () => reject(new PantalaError('deadline-exceeded', `${receiver.name} is silent`)));
  socket.on('error', broken);
  socket.once('close', () => broken());
  request.signal.addEventListener('abort', onAbort, { once: true });
  if (request.signal.aborted) onAbort();
  try {
    return await promise;
  } finally {
    request.signal.removeEventListener('abort', onAbort);
    socket.destroy();
  }
}

/** Puts the answer's content together in its own buffer and sums it up as it comes. */
class PieceReceiver {
  readonly name: string;
  readonly #request: UpstreamPieceRequest;
  readonly #content: Buffer;
  #head: Buffer = Buffer.allocUnsafe(HEAD_LENGTH);
  #headFilled = 0;
  #answer: PieceContent | undefined;
  #filled = 0;
  #sum = 0;

  constructor(address: ParentAddress, request: UpstreamPieceRequest) {
    this.name = `${address.host}:${address.port}`;
    this.#request = request;
    this.#content = Buffer.allocUnsafeSlow(lengthOf(request.range));
  }

  /** Once everything is there, further bytes have no place: they land in the head's buffer and are an error. */
  target(): Buffer {
    if (this.#answer === undefined) return this.#head.subarray(this.#headFilled);
    return this.#filled < this.#content.length ? this.#content.subarray(this.#filled) : this.#head;
  }

  received(length: number): UpstreamPiece | undefined {
    if (this.#answer !== undefined) return this.#add(length);
    this.#headFilled += length;
    const packet = decodePacket(this.#head, 0, this.#headFilled);
    if (packet === undefined) return undefined;
    const { message } = packet;
    if (message.kind === 'error') throw errorFromWire(message.code, message.message, this.name);
    if (message.kind !== 'piece-content') throw this.#wrong(`a packet ${message.kind}`);
    this.#check(message);
    this.#answer = message;
    const early = this.#head.subarray(packet.end, this.#headFilled);
    if (early.length > this.#content.length) throw this.#wrong('more bytes than the piece has');
    early.copy(this.#content);
    return this.#add(early.length);
  }

  #check(answer: PieceContent): void {
    const { piece, range } = this.#request;
    const fits = answer.piece === piece && answer.offset === range.start && answer.length === lengthOf(range);
    if (answer.family === 'standard' && fits) return;
    throw this.#wrong(
      `piece ${answer.piece} at ${answer.offset} with ${answer.length} bytes for piece ${piece} at ${range.start} with ${lengthOf(range)}`,
    );
  }

  #add(length: number): UpstreamPiece | undefined {
    if (this.#filled + length > this.#content.length) throw this.#wrong('more bytes than the piece has');
    this.#sum = crc32(this.#content.subarray(this.#filled, this.#filled + length), this.#sum);
    this.#filled += length;
    if (this.#filled < this.#content.length) return undefined;
    const { digest } = this.#answer as PieceContent;
    const expected = parseCrc32(digest);
    if (digest !== '' && expected !== this.#sum) throw this.#wrong(`CRC-32 ${this.#sum} where ${digest} was announced`);
    return { content: this.#content, crc32: this.#sum, verified: digest !== '' };
  }

  #wrong(what: string): PantalaError {
    return new PantalaError('data-loss', `${this.name} sent ${what}`, { details: { peer: this.name } });
  }
}
