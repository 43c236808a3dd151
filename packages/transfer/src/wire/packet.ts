/**
 * The piece protocol: `id u8 | tag u8 | length u32 BE | value`. Tags 0 to 7, 254 and 255 are upstream's; tags from
 * 128 are Pantala's own (docs/protocol.md). All functions here are pure.
 */
import { BLOCK_LENGTH, DIGEST_LENGTH, MAX_PIECE_LENGTH, PantalaError } from '@pantala/base';
import type { Message, PieceContent, PieceFamily, RangeRequestPacket } from './messages.ts';

export const TAG = {
  downloadPiece: 0,
  pieceContent: 1,
  downloadPersistentPiece: 2,
  persistentPieceContent: 3,
  downloadPersistentCachePiece: 4,
  persistentCachePieceContent: 5,
  downloadCachePiece: 6,
  cachePieceContent: 7,
  rangeRequest: 128,
  rangeDigests: 129,
  rangeData: 130,
  rangeEnd: 131,
  rangeError: 132,
  cancelRange: 133,
  close: 254,
  error: 255,
} as const;

/** Codes of Error (upstream's 0 to 3) and RangeError (all of them). */
export const WIRE_ERROR = { unknown: 0, invalidArgument: 1, notFound: 2, internal: 3, overloaded: 4 } as const;

export const HEADER_LENGTH = 6;

const TASK_ID_LENGTH = 64;
/** Content of one RangeData at most: bounds how long a small request waits behind another one's frame. */
export const MAX_FRAME_LENGTH = 1024 * 1024;
/** Blocks of the longest piece: bounds RangeDigests. */
export const MAX_BLOCKS_PER_PIECE = MAX_PIECE_LENGTH / BLOCK_LENGTH;
/** Upstream's metadata is about 200 bytes: a digest, a parent's id and numbers. */
export const MAX_METADATA_LENGTH = 4096;
/** Bytes of an error's text that are kept; enough for any sentence. */
export const MAX_ERROR_LENGTH = 4096;

const RANGE_REQUEST_LENGTH = 4 + TASK_ID_LENGTH + 8 + 4 + 4 + 1;
const DOWNLOAD_LENGTH = TASK_ID_LENGTH + 4;
const WANT_DIGESTS = 1;
const FETCH_MISSING = 2;

const FAMILIES: readonly PieceFamily[] = ['standard', 'persistent', 'persistent-cache', 'cache'];

/** Shortest and longest value of each tag; a header outside is refused before its value is waited for. */
const VALUE_LENGTHS: ReadonlyMap<number, readonly [min: number, max: number]> = new Map([
  ...[0, 2, 4, 6].map((tag): [number, [number, number]] => [tag, [DOWNLOAD_LENGTH, DOWNLOAD_LENGTH]]),
  ...[1, 3, 5, 7].map((tag): [number, [number, number]] => [tag, [4, 4 + MAX_METADATA_LENGTH]]),
  [TAG.rangeRequest, [RANGE_REQUEST_LENGTH, RANGE_REQUEST_LENGTH]],
  [TAG.rangeDigests, [8 + DIGEST_LENGTH, 8 + MAX_BLOCKS_PER_PIECE * DIGEST_LENGTH]],
  [TAG.rangeData, [16, 16]],
  [TAG.rangeEnd, [4, 4]],
  [TAG.rangeError, [5, 5 + MAX_ERROR_LENGTH]],
  [TAG.cancelRange, [4, 4]],
  [TAG.close, [0, 0]],
  [TAG.error, [1, 1 + MAX_ERROR_LENGTH]],
]);

/** Header and longest value of any packet: what a receiver must be able to hold at once. */
export const MAX_PACKET_LENGTH = HEADER_LENGTH + 8 + MAX_BLOCKS_PER_PIECE * DIGEST_LENGTH;

/** The bytes of a packet, less the content that follows PieceContent and RangeData. `id` only matters to upstream. */
export function encodePacket(message: Message, id = 0): Buffer {
  switch (message.kind) {
    case 'download-piece': {
      const packet = frame(id, FAMILIES.indexOf(message.family) * 2, DOWNLOAD_LENGTH);
      packet.write(taskIdOf(message.taskId), HEADER_LENGTH, 'latin1');
      packet.writeUInt32BE(message.piece, HEADER_LENGTH + TASK_ID_LENGTH);
      return packet;
    }
    case 'piece-content':
      return encodePieceContent(message, id);
    case 'range-request': {
      const packet = frame(id, TAG.rangeRequest, RANGE_REQUEST_LENGTH);
      let at = packet.writeUInt32BE(message.request, HEADER_LENGTH);
      at += packet.write(taskIdOf(message.taskId), at, 'latin1');
      at = packet.writeBigUInt64BE(BigInt(message.pieceLength), at);
      at = packet.writeUInt32BE(message.run.first, at);
      at = packet.writeUInt32BE(message.run.count, at);
      packet[at] = (message.wantDigests ? WANT_DIGESTS : 0) | (message.fetchMissing ? FETCH_MISSING : 0);
      return packet;
    }
    case 'range-digests': {
      const packet = frame(id, TAG.rangeDigests, 8 + message.digests.length);
      packet.writeUInt32BE(message.request, HEADER_LENGTH);
      packet.writeUInt32BE(message.piece, HEADER_LENGTH + 4);
      message.digests.copy(packet, HEADER_LENGTH + 8);
      return packet;
    }
    case 'range-data': {
      const packet = frame(id, TAG.rangeData, 16);
      let at = packet.writeUInt32BE(message.request, HEADER_LENGTH);
      at = packet.writeUInt32BE(message.run.first, at);
      at = packet.writeUInt32BE(message.run.count, at);
      packet.writeUInt32BE(message.bytes, at);
      return packet;
    }
    case 'range-end':
    case 'cancel-range': {
      const packet = frame(id, message.kind === 'range-end' ? TAG.rangeEnd : TAG.cancelRange, 4);
      packet.writeUInt32BE(message.request, HEADER_LENGTH);
      return packet;
    }
    case 'range-error': {
      const text = errorText(message.message);
      const packet = frame(id, TAG.rangeError, 5 + text.length);
      packet.writeUInt32BE(message.request, HEADER_LENGTH);
      packet[HEADER_LENGTH + 4] = message.code;
      text.copy(packet, HEADER_LENGTH + 5);
      return packet;
    }
    case 'close':
      return frame(id, TAG.close, 0);
    case 'error': {
      const text = errorText(message.message);
      const packet = frame(id, TAG.error, 1 + text.length);
      packet[HEADER_LENGTH] = message.code;
      text.copy(packet, HEADER_LENGTH + 1);
      return packet;
    }
  }
}

export interface DecodedPacket {
  readonly id: number;
  readonly message: Message;
  /** Where the packet ends and its content or the next packet begins. */
  readonly end: number;
}

/**
 * Decodes the packet that begins at `start`; undefined when `bytes` up to `end` does not hold all of it yet. Strings
 * and digests are copies: the buffer may be used again.
 *
 * @throws `data-loss` for an unknown tag, a length out of its bounds or a malformed value
 */
export function decodePacket(bytes: Buffer, start = 0, end = bytes.length): DecodedPacket | undefined {
  if (end - start < HEADER_LENGTH) return undefined;
  const id = bytes[start] as number;
  const tag = bytes[start + 1] as number;
  const length = bytes.readUInt32BE(start + 2);
  const bounds = VALUE_LENGTHS.get(tag);
  if (bounds === undefined) throw broken(`unknown tag ${tag}`);
  if (length < bounds[0] || length > bounds[1]) {
    throw broken(`tag ${tag} with ${length} bytes; ${bounds[0]} to ${bounds[1]} are possible`);
  }
  const valueStart = start + HEADER_LENGTH;
  const valueEnd = valueStart + length;
  if (valueEnd > end) return undefined;
  return { id, message: decodeValue(tag, bytes.subarray(valueStart, valueEnd)), end: valueEnd };
}

/** Bytes of unframed content that follow a packet. */
export function contentAfter(message: Message): number {
  if (message.kind === 'range-data') return message.bytes;
  return message.kind === 'piece-content' ? message.length : 0;
}

function decodeValue(tag: number, value: Buffer): Message {
  switch (tag) {
    case TAG.rangeRequest:
      return decodeRangeRequest(value);
    case TAG.rangeDigests: {
      if ((value.length - 8) % DIGEST_LENGTH !== 0) throw broken(`${value.length - 8} bytes are no whole digests`);
      const digests = Buffer.from(value.subarray(8));
      return { kind: 'range-digests', request: value.readUInt32BE(0), piece: value.readUInt32BE(4), digests };
    }
    case TAG.rangeData: {
      const bytes = value.readUInt32BE(12);
      const run = { first: value.readUInt32BE(4), count: value.readUInt32BE(8) };
      if (bytes === 0 || bytes > MAX_FRAME_LENGTH || run.count === 0) {
        throw broken(`a frame of ${run.count} blocks and ${bytes} bytes; at most ${MAX_FRAME_LENGTH} are possible`);
      }
      return { kind: 'range-data', request: value.readUInt32BE(0), run, bytes };
    }
    case TAG.rangeEnd:
      return { kind: 'range-end', request: value.readUInt32BE(0) };
    case TAG.cancelRange:
      return { kind: 'cancel-range', request: value.readUInt32BE(0) };
    case TAG.rangeError:
      return {
        kind: 'range-error',
        request: value.readUInt32BE(0),
        code: value[4] as number,
        message: value.toString('utf8', 5),
      };
    case TAG.close:
      return { kind: 'close' };
    case TAG.error:
      return { kind: 'error', code: value[0] as number, message: value.toString('utf8', 1) };
    default: {
      const family = FAMILIES[tag >> 1] as PieceFamily;
      if ((tag & 1) === 1) return decodePieceContent(family, value);
      const taskId = decodeTaskId(value, 0);
      return { kind: 'download-piece', family, taskId, piece: value.readUInt32BE(TASK_ID_LENGTH) };
    }
  }
}

function decodeRangeRequest(value: Buffer): RangeRequestPacket {
  const flags = value[RANGE_REQUEST_LENGTH - 1] as number;
  return {
    kind: 'range-request',
    request: value.readUInt32BE(0),
    taskId: decodeTaskId(value, 4),
    pieceLength: safeNumber(value.readBigUInt64BE(4 + TASK_ID_LENGTH), 'piece length'),
    run: { first: value.readUInt32BE(12 + TASK_ID_LENGTH), count: value.readUInt32BE(16 + TASK_ID_LENGTH) },
    wantDigests: (flags & WANT_DIGESTS) !== 0,
    fetchMissing: (flags & FETCH_MISSING) !== 0,
  };
}

/** metadata_length u32 | number u32 | offset u64 | length u64 | digest | parent | traffic u8 | cost u64 | created i64 */
function encodePieceContent(message: PieceContent, id: number): Buffer {
  const digest = Buffer.from(message.digest, 'utf8');
  const parent = Buffer.from(message.parentId, 'utf8');
  const metadataLength = 4 + 8 + 8 + 4 + digest.length + 4 + parent.length + 1 + 8 + 8;
  const packet = frame(id, FAMILIES.indexOf(message.family) * 2 + 1, 4 + metadataLength);
  let at = packet.writeUInt32BE(metadataLength, HEADER_LENGTH);
  at = packet.writeUInt32BE(message.piece, at);
  at = packet.writeBigUInt64BE(BigInt(message.offset), at);
  at = packet.writeBigUInt64BE(BigInt(message.length), at);
  at = packet.writeUInt32BE(digest.length, at);
  at += digest.copy(packet, at);
  at = packet.writeUInt32BE(parent.length, at);
  at += parent.copy(packet, at);
  at = packet.writeUInt8(message.trafficType, at);
  at = packet.writeBigUInt64BE(BigInt(message.cost), at);
  packet.writeBigInt64BE(BigInt(message.createdAt), at);
  return packet;
}

function decodePieceContent(family: PieceFamily, value: Buffer): PieceContent {
  const fields = new FieldReader(value);
  const metadataLength = fields.u32();
  if (metadataLength !== value.length - 4) {
    throw broken(`metadata of ${metadataLength} bytes in a value of ${value.length}`);
  }
  const content: PieceContent = {
    kind: 'piece-content',
    family,
    piece: fields.u32(),
    offset: fields.u64('offset'),
    length: fields.u64('length'),
    digest: fields.text(),
    parentId: fields.text(),
    trafficType: fields.u8(),
    cost: fields.u64('cost'),
    createdAt: fields.i64('creation time'),
  };
  fields.finish();
  return content;
}

/** Reads fields in order and refuses to read past the end. */
class FieldReader {
  readonly #value: Buffer;
  #at = 0;

  constructor(value: Buffer) {
    this.#value = value;
  }

  u8(): number {
    return this.#value.readUInt8(this.#take(1));
  }

  u32(): number {
    return this.#value.readUInt32BE(this.#take(4));
  }

  u64(what: string): number {
    return safeNumber(this.#value.readBigUInt64BE(this.#take(8)), what);
  }

  i64(what: string): number {
    return safeNumber(this.#value.readBigInt64BE(this.#take(8)), what);
  }

  text(): string {
    const length = this.u32();
    const start = this.#take(length);
    return this.#value.toString('utf8', start, start + length);
  }

  finish(): void {
    if (this.#at !== this.#value.length) throw broken(`${this.#value.length - this.#at} bytes too many in a value`);
  }

  #take(length: number): number {
    const start = this.#at;
    if (start + length > this.#value.length) throw broken('a value ends before its fields do');
    this.#at += length;
    return start;
  }
}

function frame(id: number, tag: number, length: number): Buffer {
  const packet = Buffer.allocUnsafe(HEADER_LENGTH + length);
  packet[0] = id;
  packet[1] = tag;
  packet.writeUInt32BE(length, 2);
  return packet;
}

function taskIdOf(taskId: string): string {
  if (!/^[0-9a-f]{64}$/.test(taskId)) {
    throw new PantalaError('invalid-argument', `task id "${taskId.slice(0, 80)}" is not 64 lower-case hex digits`);
  }
  return taskId;
}

function decodeTaskId(value: Buffer, at: number): string {
  const taskId = value.toString('latin1', at, at + TASK_ID_LENGTH);
  if (!/^[0-9a-f]{64}$/.test(taskId)) throw broken('a task id is not 64 lower-case hex digits');
  return taskId;
}

function errorText(message: string): Buffer {
  return Buffer.from(message, 'utf8').subarray(0, MAX_ERROR_LENGTH);
}

function safeNumber(value: bigint, what: string): number {
  const number = Number(value);
  if (!Number.isSafeInteger(number)) throw broken(`${what} ${value} is beyond 2^53`);
  return number;
}

function broken(what: string): PantalaError {
  return new PantalaError('data-loss', `the piece protocol was broken: ${what}`);
}
