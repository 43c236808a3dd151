import { type BigIntStats, constants, readFileSync, writeSync } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { Bitmap, type BlockRun, PantalaError, type ReadonlyBitmap } from '@pantala/base';
import {
  bootIdOf,
  encodeDurable,
  encodeHeader,
  encodeRuns,
  encodeUsed,
  HEADER_LENGTH,
  type JournalIdentity,
  recordsOf,
} from './journal-format.ts';

/** Bytes of a journal that is read. 2^24 chunks, the most of a blob, each with a record of its own, stay below it. */
const MAX_JOURNAL_LENGTH = 320 * 1024 * 1024;
/** Bytes from which a journal is written anew when it could be half as long. */
const COMPACTED_FROM = 64 * 1024;

export interface RecoveredFill {
  readonly journal: FillJournal;
  /** Chunks that the cache file has. */
  readonly held: Bitmap;
  /** Chunks that it may have: their digests decide. */
  readonly suspect: Bitmap;
  /** Whether a cache file that is trusted, since mounts go on reading it, was changed after its journal was. */
  readonly doubted: boolean;
}

/**
 * Says which chunks of a cache file can be trusted after a crash. A record is appended when its chunks are in the
 * file; what is recorded is trusted as long as the machine has not started anew, for a killed process loses no write.
 * After a start of the machine only what was synced counts. What was recorded and does not count so is suspect, and so
 * is everything when the cache file was changed after the journal was.
 */
export class FillJournal implements AsyncDisposable {
  readonly #file: FileHandle;
  #size: number;
  /** Records that could not be written yet. */
  #pending: Buffer = Buffer.alloc(0);

  private constructor(file: FileHandle, size: number) {
    this.#file = file;
    this.#size = size;
  }

  /**
   * @param data of the cache file as it was found; undefined when it was not there
   * @param inUse whether a mount of a killed process still reads the cache file
   * @throws `permission-denied`, `disk-full`
   */
  static async open(
    path: string,
    identity: JournalIdentity,
    data: BigIntStats | undefined,
    inUse = false,
  ): Promise<RecoveredFill> {
    const file = await open(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    try {
      const found = await file.stat({ bigint: true });
      const bytes = found.size <= MAX_JOURNAL_LENGTH ? await file.readFile() : Buffer.alloc(0);
      const boot = currentBootId();
      const written = bootIdOf(bytes, identity);
      const usable = written !== undefined && data !== undefined && data.size === BigInt(identity.size);
      const state = usable ? replay(bytes, identity.chunkCount) : undefined;
      if (state === undefined) return await FillJournal.#anew(path, file, identity, boot, empty(identity));
      // A worker that is killed has written more than it had recorded: its successor, in whose charge the mounts are
      // without a gap, does not doubt the rest for that.
      const changedBehindIt = !inUse && data !== undefined && data.mtimeNs > found.mtimeNs;
      const sameBoot = written?.equals(boot) === true && boot.some((byte) => byte !== 0);
      const trusted = changedBehindIt ? new Bitmap(identity.chunkCount) : sameBoot ? state.held : state.durable;
      const suspect = difference(union(state.held, state.suspect), trusted);
      const isAsItIs = sameBoot && !changedBehindIt;
      const compact = HEADER_LENGTH + 16 * (1 + runCount(trusted) + runCount(suspect));
      if (!isAsItIs || (bytes.length > COMPACTED_FROM && bytes.length > 2 * compact)) {
        return await FillJournal.#anew(path, file, identity, boot, { held: trusted, suspect, durable: state.durable });
      }
      if (state.end < bytes.length) await file.truncate(state.end);
      // Of the two times of a file this is the one that nobody can set.
      const doubted = inUse && data !== undefined && data.ctimeNs > found.mtimeNs;
      return { journal: new FillJournal(file, state.end), held: state.held, suspect, doubted };
    } catch (error) {
      await file.close();
      throw PantalaError.from(error);
    }
  }

  static async #anew(
    path: string,
    old: FileHandle,
    identity: JournalIdentity,
    boot: Buffer,
    state: FillState,
  ): Promise<RecoveredFill> {
    const { held, suspect, durable } = state;
    const onDisk = encodeRuns('held', intersection(held, durable).runs(true));
    const records = [
      encodeHeader(identity, boot),
      onDisk,
      encodeDurable(HEADER_LENGTH + onDisk.length),
      encodeRuns('held', difference(held, durable).runs(true)),
      encodeRuns('suspect', suspect.runs(true)),
    ];
    const bytes = Buffer.concat(records);
    const file = await open(`${path}.new`, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, 0o600);
    try {
      await file.writeFile(bytes);
      // One that says of no chunk that it is there may be lost: that says the same.
      if (held.count > 0 || suspect.count > 0) await file.datasync();
      await rename(`${path}.new`, path);
      await old.close();
      return { journal: new FillJournal(file, bytes.length), held, suspect, doubted: false };
    } catch (error) {
      await file.close();
      await rm(`${path}.new`, { force: true });
      throw error;
    }
  }

  /** Records chunks that are in the cache file. */
  append(runs: Iterable<BlockRun>): void {
    this.#append(encodeRuns('held', runs));
  }

  /** Has whoever comes next check chunks that were recorded. */
  appendSuspect(runs: Iterable<BlockRun>): void {
    this.#append(encodeRuns('suspect', runs));
  }

  /** Nobody uses the blob from here on. */
  appendUsed(): void {
    this.#append(encodeUsed());
  }

  /**
   * Returns when the record is written, so that what a reader was told is known to whoever comes after a crash: a few
   * microseconds, which a turn through the pool of threads would multiply. What cannot be written is kept for the next
   * attempt: a record that is missing costs a fetch after a crash and nothing else.
   */
  #append(record: Buffer): void {
    const bytes = this.#pending.length === 0 ? record : Buffer.concat([this.#pending, record]);
    try {
      for (let done = 0; done < bytes.length; ) {
        done += writeSync(this.#file.fd, bytes, done, bytes.length - done, this.#size + done);
      }
      this.#size += bytes.length;
      this.#pending = Buffer.alloc(0);
    } catch {
      this.#pending = bytes;
    }
  }

  /**
   * Makes what is recorded until now outlive a power loss.
   *
   * @param syncData brings the cache file to the disk
   */
  async makeDurable(syncData: () => Promise<void>): Promise<void> {
    const covered = this.#size;
    await syncData();
    this.#append(encodeDurable(covered));
    await this.#file.datasync();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#file.close();
  }
}

interface FillState {
  readonly held: Bitmap;
  readonly suspect: Bitmap;
  /** Of what is or was held: what is on disk. */
  readonly durable: Bitmap;
}

function empty({ chunkCount }: JournalIdentity): FillState {
  return { held: new Bitmap(chunkCount), suspect: new Bitmap(chunkCount), durable: new Bitmap(chunkCount) };
}

/** Undefined when it names chunks that the blob does not have. */
function replay(bytes: Buffer, chunkCount: number): (FillState & { readonly end: number }) | undefined {
  const held = new Bitmap(chunkCount);
  const suspect = new Bitmap(chunkCount);
  const durable = new Bitmap(chunkCount);
  /** Runs that no later record has called durable, with the offset after their record. */
  let open: { readonly end: number; readonly runs: readonly BlockRun[] }[] = [];
  let last = HEADER_LENGTH;
  for (const { record, end } of recordsOf(bytes)) {
    last = end;
    if (record.kind === 'durable') {
      for (const { end: after, runs } of open) {
        if (after <= record.offset) for (const run of runs) durable.setRun(run);
      }
      open = open.filter((each) => each.end > record.offset);
      continue;
    }
    if (record.kind === 'used') continue;
    const [into, outOf] = record.kind === 'held' ? [held, suspect] : [suspect, held];
    for (const run of record.runs) {
      if (run.first + run.count > chunkCount) return undefined;
      into.setRun(run);
      for (let chunk = run.first; chunk < run.first + run.count; chunk++) outOf.clear(chunk);
    }
    if (record.kind === 'held') open.push({ end, runs: record.runs });
  }
  return { held, suspect, durable, end: last };
}

function runCount(bitmap: ReadonlyBitmap): number {
  return [...bitmap.runs(true)].length;
}

function union(a: ReadonlyBitmap, b: ReadonlyBitmap): Bitmap {
  const result = Bitmap.fromBytes(a.toBytes(), a.length);
  for (const run of b.runs(true)) result.setRun(run);
  return result;
}

function difference(a: ReadonlyBitmap, b: ReadonlyBitmap): Bitmap {
  const result = Bitmap.fromBytes(a.toBytes(), a.length);
  for (const { first, count } of b.runs(true)) for (let i = first; i < first + count; i++) result.clear(i);
  return result;
}

function intersection(a: ReadonlyBitmap, b: ReadonlyBitmap): Bitmap {
  return difference(a, difference(a, b));
}

/** The kernel's id of this start of the machine; zeros where it tells none, which equal nothing. */
function currentBootId(): Buffer {
  try {
    const text = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1');
    return Buffer.from(text.replaceAll(/[^0-9a-f]/g, ''), 'hex');
  } catch {
    return Buffer.alloc(16);
  }
}
