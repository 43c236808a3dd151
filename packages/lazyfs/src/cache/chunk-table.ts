/**
 * The digests of a blob's chunks as they outlive the blob's use: magic, version u32, number of chunks u32; then the
 * first 4 bytes of each digest; then a record for each chunk: digest (32 bytes), where it begins in the decoded blob as a
 * double, its length u32, 4 bytes 0. All numbers are little-endian. Nothing in it is trusted: who copies a chunk
 * checks its content.
 */
import { open, rename, writeFile } from 'node:fs/promises';
import type { ChunkLayout } from './chunk-layout.ts';

const MAGIC = Buffer.from('PANTALAT');
const VERSION = 1;
const HEADER_LENGTH = 16;
const RECORD_LENGTH = 48;

/** Chunks of one table that is read. */
const MAX_CHUNKS = 2 ** 24;

export interface TableRecord {
  /** 32 bytes. */
  readonly digest: Buffer;
  /** In the decoded blob. */
  readonly start: number;
  readonly length: number;
}

/** A digest's own first bytes are as good as any hash of it. */
export function prefixOf(digest: Uint8Array): number {
  // By index: taking them apart as a list costs ten times as much, and it is done for every chunk of an image.
  const low = (digest[0] as number) | ((digest[1] as number) << 8);
  return (low | ((digest[2] as number) << 16) | ((digest[3] as number) << 24)) >>> 0;
}

export async function writeChunkTable(path: string, layout: ChunkLayout): Promise<void> {
  const count = layout.chunkCount;
  const bytes = Buffer.alloc(HEADER_LENGTH + count * (4 + RECORD_LENGTH));
  MAGIC.copy(bytes);
  bytes.writeUInt32LE(VERSION, 8);
  bytes.writeUInt32LE(count, 12);
  for (let chunk = 0; chunk < count; chunk++) {
    const digest = layout.digestOf(chunk);
    const { start, end } = layout.rangeOf(chunk);
    const record = HEADER_LENGTH + count * 4 + chunk * RECORD_LENGTH;
    bytes.writeUInt32LE(prefixOf(digest), HEADER_LENGTH + chunk * 4);
    bytes.set(digest, record);
    bytes.writeDoubleLE(start, record + 32);
    bytes.writeUInt32LE(end - start, record + 40);
  }
  await writeFile(`${path}.new`, bytes, { mode: 0o600 });
  await rename(`${path}.new`, path);
}

/** The prefixes of a table's digests, chunk by chunk; undefined for a file that is none. */
export async function readPrefixes(path: string): Promise<Uint32Array | undefined> {
  const file = await open(path).catch(() => undefined);
  if (file === undefined) return undefined;
  try {
    const header = Buffer.alloc(HEADER_LENGTH);
    await file.read(header, 0, HEADER_LENGTH, 0);
    const count = header.readUInt32LE(12);
    const { size } = await file.stat();
    const isTable = header.subarray(0, 8).equals(MAGIC) && header.readUInt32LE(8) === VERSION && count <= MAX_CHUNKS;
    if (!isTable || size !== HEADER_LENGTH + count * (4 + RECORD_LENGTH)) return undefined;
    const prefixes = new Uint32Array(count);
    const bytes = Buffer.from(prefixes.buffer);
    for (let done = 0; done < bytes.length; ) {
      const { bytesRead } = await file.read(bytes, done, bytes.length - done, HEADER_LENGTH + done);
      if (bytesRead === 0) return undefined;
      done += bytesRead;
    }
    return prefixes;
  } finally {
    await file.close();
  }
}

/** The records of some chunks. */
export async function readRecords(path: string, count: number, chunks: readonly number[]): Promise<TableRecord[]> {
  const file = await open(path);
  try {
    const records: TableRecord[] = [];
    for (const chunk of chunks) {
      const bytes = Buffer.alloc(RECORD_LENGTH);
      await file.read(bytes, 0, RECORD_LENGTH, HEADER_LENGTH + count * 4 + chunk * RECORD_LENGTH);
      records.push({ digest: bytes.subarray(0, 32), start: bytes.readDoubleLE(32), length: bytes.readUInt32LE(40) });
    }
    return records;
  } finally {
    await file.close();
  }
}
