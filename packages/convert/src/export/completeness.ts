import { readFile, stat, writeFile } from 'node:fs/promises';

/** Beside a decoded blob; nydusd's own name and format for what it has of a blob. */
const SUFFIX = '.chunk_map';
const HEADER_LENGTH = 4096;
const MAGIC = 0x424d_4150;
const VERSION = 1;
const SECOND_MAGIC = 0x434d_4150;
/** In the header's fourth word: every chunk is there. */
const ALL_READY = 0x4d4d_4150;

/** Records that a decoded blob is complete and on disk. */
export async function recordComplete(path: string, chunkCount: number): Promise<void> {
  const record = Buffer.alloc(HEADER_LENGTH + Math.ceil(chunkCount / 8));
  for (const [word, value] of [MAGIC, VERSION, SECOND_MAGIC, ALL_READY].entries())
    record.writeUInt32LE(value, word * 4);
  // The first chunk is the highest bit of the first byte.
  record.fill(0xff, HEADER_LENGTH);
  const unused = (8 - (chunkCount % 8)) % 8;
  if (unused > 0) record[record.length - 1] = (0xff << unused) & 0xff;
  await writeFile(path + SUFFIX, record, { flush: true });
}

/**
 * Whether a file is a complete decoded blob of `size` bytes. Its length alone says nothing: files that fill as they
 * are read have it from the beginning, and the kernel would show zeros for what is missing.
 */
export async function isComplete(path: string, size: number): Promise<boolean> {
  try {
    const found = await stat(path);
    if (!found.isFile() || found.size !== size) return false;
    const header = (await readFile(path + SUFFIX)).subarray(0, HEADER_LENGTH);
    return header.length === HEADER_LENGTH && header.readUInt32LE(0) === MAGIC && header.readUInt32LE(12) === ALL_READY;
  } catch {
    return false;
  }
}
