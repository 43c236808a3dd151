/**
 * What a blob's journal says of its cache file. A header of 80 bytes: magic, version u32, CRC-32 u32 of what follows
 * it, boot id, number of chunks u32, 4 bytes 0, bytes of the decoded blob as a double, blob id (32 bytes). Then records: length u32
 * and CRC-32 u32 of the payload, payload: a kind and its body. All numbers are little-endian.
 */
import { type BlockRun, crc32 } from '@pantala/base';

export const HEADER_LENGTH = 80;
const FRAME_LENGTH = 8;

/** A longer record is damage: runs are split at MAX_RUNS. */
const MAX_RECORD_LENGTH = 256 * 1024;
/** Runs in one record, 8 bytes each. */
const MAX_RUNS = 16 * 1024;

const MAGIC = Buffer.from('PANTALAF');
const VERSION = 1;

const KINDS = { held: 1, suspect: 2, durable: 3, used: 4 } as const;

export type JournalRecord =
  /** Chunks whose checked content was written to the cache file. */
  | { readonly kind: 'held'; readonly runs: readonly BlockRun[] }
  /** Chunks of which nobody knows whether the file has them: whoever wants them checks them first. */
  | { readonly kind: 'suspect'; readonly runs: readonly BlockRun[] }
  /** What the records before this offset of the journal say is on disk, not only in memory. */
  | { readonly kind: 'durable'; readonly offset: number }
  /** Nobody uses the blob any more. The journal's time of change is when that was. */
  | { readonly kind: 'used' };

/** What a journal belongs to. One that belongs to another layout of the blob says nothing. */
export interface JournalIdentity {
  /** 64 hex digits. */
  readonly blobId: string;
  readonly chunkCount: number;
  /** Bytes of the decoded blob. */
  readonly size: number;
}

/** @param bootId 16 bytes */
export function encodeHeader(identity: JournalIdentity, bootId: Uint8Array): Buffer {
  const header = Buffer.alloc(HEADER_LENGTH);
  MAGIC.copy(header);
  header.writeUInt32LE(VERSION, 8);
  header.set(bootId.subarray(0, 16), 16);
  header.writeUInt32LE(identity.chunkCount, 32);
  header.writeDoubleLE(identity.size, 40);
  header.write(identity.blobId, 48, 32, 'hex');
  header.writeUInt32LE(crc32(header.subarray(16)), 12);
  return header;
}

/** The boot id of a header that belongs to `identity`; undefined for any other, or damage. */
export function bootIdOf(header: Buffer, identity: JournalIdentity): Buffer | undefined {
  if (header.length < HEADER_LENGTH) return undefined;
  const bootId = header.subarray(16, 32);
  return encodeHeader(identity, bootId).equals(header.subarray(0, HEADER_LENGTH)) ? bootId : undefined;
}

export function encodeRuns(kind: 'held' | 'suspect', runs: Iterable<BlockRun>): Buffer {
  const list = [...runs];
  const records: Buffer[] = [];
  for (let start = 0; start < list.length; start += MAX_RUNS) {
    const part = list.slice(start, start + MAX_RUNS);
    const record = frame(kind, part.length * 8);
    part.forEach(({ first, count }, i) => {
      record.writeUInt32LE(first, FRAME_LENGTH + 1 + i * 8);
      record.writeUInt32LE(count, FRAME_LENGTH + 5 + i * 8);
    });
    records.push(seal(record));
  }
  return Buffer.concat(records);
}

export function encodeDurable(offset: number): Buffer {
  const record = frame('durable', 8);
  record.writeDoubleLE(offset, FRAME_LENGTH + 1);
  return seal(record);
}

export function encodeUsed(): Buffer {
  return seal(frame('used', 0));
}

function frame(kind: JournalRecord['kind'], length: number): Buffer {
  const record = Buffer.alloc(FRAME_LENGTH + 1 + length);
  record.writeUInt32LE(1 + length, 0);
  record[FRAME_LENGTH] = KINDS[kind];
  return record;
}

function seal(record: Buffer): Buffer {
  record.writeUInt32LE(crc32(record.subarray(FRAME_LENGTH)), 4);
  return record;
}

/**
 * The records of a journal in order, each with the offset after it, up to the first bytes that are none: a record that
 * was torn, or the zeros that a file system leaves after a power loss.
 */
export function* recordsOf(journal: Buffer): Generator<{ readonly record: JournalRecord; readonly end: number }> {
  for (let offset = HEADER_LENGTH; offset + FRAME_LENGTH < journal.length; ) {
    const length = journal.readUInt32LE(offset);
    const end = offset + FRAME_LENGTH + length;
    if (length === 0 || length > MAX_RECORD_LENGTH || end > journal.length) return;
    const payload = journal.subarray(offset + FRAME_LENGTH, end);
    if (crc32(payload) !== journal.readUInt32LE(offset + 4)) return;
    const record = decode(payload);
    if (record === undefined) return;
    yield { record, end };
    offset = end;
  }
}

function decode(payload: Buffer): JournalRecord | undefined {
  const body = payload.subarray(1);
  switch (payload[0]) {
    case KINDS.held:
    case KINDS.suspect: {
      if (body.length % 8 !== 0) return undefined;
      const runs = Array.from({ length: body.length / 8 }, (_, i) => ({
        first: body.readUInt32LE(i * 8),
        count: body.readUInt32LE(i * 8 + 4),
      }));
      return { kind: payload[0] === KINDS.held ? 'held' : 'suspect', runs };
    }
    case KINDS.durable:
      return body.length === 8 ? { kind: 'durable', offset: body.readDoubleLE(0) } : undefined;
    case KINDS.used:
      return { kind: 'used' };
    default:
      return undefined;
  }
}
