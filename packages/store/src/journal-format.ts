/**
 * The journal's bytes. A header of 32 bytes (magic, version, CRC-32 of the rest of it, boot id), then records: length
 * u32, CRC-32 u32 of the payload, payload. All numbers are little-endian; times are milliseconds since the epoch as
 * doubles, lengths of content are doubles too (exact up to 2^53).
 */
import { type BlockRun, crc32 } from '@pantala/base';

export const HEADER_LENGTH = 32;
export const FRAME_LENGTH = 8;

/** A longer record is damage: descriptions end at MAX_DESCRIPTION_LENGTH, lists of runs and times are split. */
export const MAX_RECORD_LENGTH = 1024 * 1024;

/** Bytes of a task's URL, headers and so on as JSON. Origins send a few hundred; servers refuse more than 64 KiB. */
export const MAX_DESCRIPTION_LENGTH = 256 * 1024;

/** Runs, or times of use, in one record: 12 bytes each at most. */
const MAX_LIST_LENGTH = 16 * 1024;

const MAGIC = Buffer.from('PANTALAJ');
const VERSION = 1;

const KINDS = { created: 1, blocks: 2, complete: 3, removed: 4, void: 5, used: 6, linked: 7, suspect: 8 } as const;

/** Facts of an inode that change when its content does. */
export interface InodeFacts {
  readonly inode: bigint;
  readonly size: bigint;
  readonly modifiedNs: bigint;
  readonly changedNs: bigint;
}

export interface CreatedRecord {
  readonly kind: 'created';
  readonly serial: number;
  readonly id: string;
  readonly createdAt: number;
  readonly usedAt: number;
  readonly contentLength: number;
  readonly pieceLength: number;
  /** The rest of the description, as JSON. */
  readonly description: Buffer;
}

export type JournalRecord =
  | CreatedRecord
  | { readonly kind: 'blocks'; readonly serial: number; readonly runs: readonly BlockRun[] }
  | { readonly kind: 'complete'; readonly serial: number; readonly completedAt: number }
  | { readonly kind: 'removed'; readonly serial: number }
  | { readonly kind: 'void'; readonly serial: number }
  | { readonly kind: 'used'; readonly uses: readonly { readonly serial: number; readonly usedAt: number }[] }
  | { readonly kind: 'linked'; readonly serial: number; readonly facts: InodeFacts }
  /** Blocks that are held no longer until they were checked against their digests. */
  | { readonly kind: 'suspect'; readonly serial: number; readonly runs: readonly BlockRun[] };

export function encodeHeader(bootId: Buffer): Buffer {
  const header = Buffer.alloc(HEADER_LENGTH);
  MAGIC.copy(header);
  header.writeUInt32LE(VERSION, 8);
  bootId.copy(header, 16, 0, 16);
  header.writeUInt32LE(headerCrc(header), 12);
  return header;
}

export type HeaderReading = { readonly bootId: Buffer } | 'damaged' | { readonly otherVersion: number };

export function decodeHeader(header: Buffer): HeaderReading {
  if (header.length < HEADER_LENGTH || !header.subarray(0, 8).equals(MAGIC)) return 'damaged';
  if (header.readUInt32LE(12) !== headerCrc(header)) return 'damaged';
  const version = header.readUInt32LE(8);
  return version === VERSION ? { bootId: header.subarray(16, 32) } : { otherVersion: version };
}

function headerCrc(header: Buffer): number {
  return crc32(header.subarray(16, 32), crc32(header.subarray(0, 12)));
}

/** Bytes of a created record before its description, frame included. */
export const CREATED_FIXED_LENGTH = FRAME_LENGTH + 1 + 4 + 32 + 4 * 8;

export function encodeCreated(record: Omit<CreatedRecord, 'kind'>): Buffer {
  const bytes = frame('created', record.serial, CREATED_FIXED_LENGTH - FRAME_LENGTH - 5 + record.description.length);
  bytes.write(record.id, 13, 'hex');
  bytes.writeDoubleLE(record.createdAt, 45);
  bytes.writeDoubleLE(record.usedAt, 53);
  bytes.writeDoubleLE(record.contentLength, 61);
  bytes.writeDoubleLE(record.pieceLength, 69);
  record.description.copy(bytes, CREATED_FIXED_LENGTH);
  return seal(bytes);
}

export function encodeRuns(kind: 'blocks' | 'suspect', serial: number, runs: Iterable<BlockRun>): Buffer {
  const records: Buffer[] = [];
  const list = [...runs];
  for (let start = 0; start < list.length; start += MAX_LIST_LENGTH) {
    const part = list.slice(start, start + MAX_LIST_LENGTH);
    const bytes = frame(kind, serial, part.length * 8);
    part.forEach(({ first, count }, i) => {
      bytes.writeUInt32LE(first, 13 + i * 8);
      bytes.writeUInt32LE(count, 17 + i * 8);
    });
    records.push(seal(bytes));
  }
  return records.length === 1 ? (records[0] as Buffer) : Buffer.concat(records);
}

export function encodeComplete(serial: number, completedAt: number): Buffer {
  const bytes = frame('complete', serial, 8);
  bytes.writeDoubleLE(completedAt, 13);
  return seal(bytes);
}

export function encodeBare(kind: 'removed' | 'void', serial: number): Buffer {
  return seal(frame(kind, serial, 0));
}

export function encodeUsed(uses: readonly { readonly serial: number; readonly usedAt: number }[]): Buffer {
  const records: Buffer[] = [];
  for (let start = 0; start < uses.length; start += MAX_LIST_LENGTH) {
    const part = uses.slice(start, start + MAX_LIST_LENGTH);
    const bytes = frame('used', 0, part.length * 12);
    part.forEach(({ serial, usedAt }, i) => {
      bytes.writeUInt32LE(serial, 13 + i * 12);
      bytes.writeDoubleLE(usedAt, 17 + i * 12);
    });
    records.push(seal(bytes));
  }
  return Buffer.concat(records);
}

export function encodeLinked(serial: number, facts: InodeFacts): Buffer {
  const bytes = frame('linked', serial, 32);
  bytes.writeBigUInt64LE(facts.inode, 13);
  bytes.writeBigUInt64LE(facts.size, 21);
  bytes.writeBigInt64LE(facts.modifiedNs, 29);
  bytes.writeBigInt64LE(facts.changedNs, 37);
  return seal(bytes);
}

function frame(kind: JournalRecord['kind'], serial: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(FRAME_LENGTH + 5 + length);
  bytes.writeUInt32LE(5 + length, 0);
  bytes[FRAME_LENGTH] = KINDS[kind];
  bytes.writeUInt32LE(serial, FRAME_LENGTH + 1);
  return bytes;
}

function seal(bytes: Buffer): Buffer {
  bytes.writeUInt32LE(crc32(bytes.subarray(FRAME_LENGTH)), 4);
  return bytes;
}

/**
 * The record at `offset`: its payload, 'short' when the bytes end before it does, 'damaged' when it is none. A run of
 * zeros (what a file system leaves after a power loss) is damage too.
 */
export function payloadAt(bytes: Buffer, offset: number): Buffer | 'short' | 'damaged' {
  if (offset + FRAME_LENGTH > bytes.length) return 'short';
  const length = bytes.readUInt32LE(offset);
  if (length < 5 || length > MAX_RECORD_LENGTH) return 'damaged';
  const end = offset + FRAME_LENGTH + length;
  if (end > bytes.length) return 'short';
  const payload = bytes.subarray(offset + FRAME_LENGTH, end);
  return crc32(payload) === bytes.readUInt32LE(offset + 4) ? payload : 'damaged';
}

/** Undefined for a payload that is no record of this version. */
export function decodeRecord(payload: Buffer): JournalRecord | undefined {
  const serial = payload.readUInt32LE(1);
  const rest = payload.length - 5;
  switch (payload[0]) {
    case KINDS.created:
      if (payload.length < CREATED_FIXED_LENGTH - FRAME_LENGTH) return undefined;
      return {
        kind: 'created',
        serial,
        id: payload.toString('hex', 5, 37),
        createdAt: payload.readDoubleLE(37),
        usedAt: payload.readDoubleLE(45),
        contentLength: payload.readDoubleLE(53),
        pieceLength: payload.readDoubleLE(61),
        description: payload.subarray(CREATED_FIXED_LENGTH - FRAME_LENGTH),
      };
    case KINDS.blocks:
    case KINDS.suspect: {
      if (rest % 8 !== 0) return undefined;
      const runs = Array.from({ length: rest / 8 }, (_, i) => ({
        first: payload.readUInt32LE(5 + i * 8),
        count: payload.readUInt32LE(9 + i * 8),
      }));
      return { kind: payload[0] === KINDS.blocks ? 'blocks' : 'suspect', serial, runs };
    }
    case KINDS.complete:
      return rest === 8 ? { kind: 'complete', serial, completedAt: payload.readDoubleLE(5) } : undefined;
    case KINDS.removed:
      return { kind: 'removed', serial };
    case KINDS.void:
      return { kind: 'void', serial };
    case KINDS.used: {
      if (rest % 12 !== 0) return undefined;
      const uses = Array.from({ length: rest / 12 }, (_, i) => ({
        serial: payload.readUInt32LE(5 + i * 12),
        usedAt: payload.readDoubleLE(9 + i * 12),
      }));
      return { kind: 'used', uses };
    }
    case KINDS.linked:
      if (rest !== 32) return undefined;
      return {
        kind: 'linked',
        serial,
        facts: {
          inode: payload.readBigUInt64LE(5),
          size: payload.readBigUInt64LE(13),
          modifiedNs: payload.readBigInt64LE(21),
          changedNs: payload.readBigInt64LE(29),
        },
      };
    default:
      return undefined;
  }
}
