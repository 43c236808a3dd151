import {
  closeSync,
  constants,
  fdatasync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  write,
  writeSync,
} from 'node:fs';
import { promisify } from 'node:util';
import { Deferred, PantalaError } from '@pantala/base';
import {
  decodeHeader,
  decodeRecord,
  encodeHeader,
  FRAME_LENGTH,
  HEADER_LENGTH,
  type JournalRecord,
  MAX_RECORD_LENGTH,
  payloadAt,
} from './journal-format.ts';

/** Bytes read at once at recovery and written at once by a compaction. */
const CHUNK_LENGTH = 1024 * 1024;

const syncFile = promisify(fdatasync);
const writeFile = promisify(write);

/** Hears each record at recovery; `offset` is where the record's frame begins in the file. */
export type Replay = (record: JournalRecord, offset: number) => void;

export interface RecoveredJournal {
  readonly journal: Journal;
  /** The machine has been started anew since the journal was written: what was in its page cache may be gone. */
  readonly otherBoot: boolean;
  /** Bytes that were cut off because they are no whole records. */
  readonly cutBytes: number;
}

/** The records of one task in a compacted journal. */
export interface Snapshot {
  readonly records: Buffer;
  /** Told where they went, once the new journal is the journal. */
  readonly moved: (offset: number) => void;
}

/**
 * The store's one append-only file. Records gather during a turn of the event loop and are written together by one
 * synchronous call into the page cache, so that they survive the death of the process; a power loss is noticed by the
 * boot id in the header.
 */
export class Journal {
  readonly #path: string;
  readonly #bootId: Buffer;
  #fd: number;
  /** Bytes in the file that are whole records. */
  #size: number;
  #pending: Buffer[] = [];
  /** Of the pending ones, those that a failed write must not lose. */
  #kept: Buffer[] = [];
  #pendingLength = 0;
  #flush: Deferred | undefined;
  #compacting = false;
  #closed = false;
  #unsynced = false;

  private constructor(path: string, fd: number, size: number, bootId: Buffer) {
    this.#path = path;
    this.#fd = fd;
    this.#size = size;
    this.#bootId = bootId;
  }

  /** @throws `failed-precondition` for a journal of another version */
  static recover(path: string, bootId: Buffer, replay: Replay): RecoveredJournal {
    const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, 0o600);
    try {
      const found = Buffer.alloc(HEADER_LENGTH);
      const reading = decodeHeader(found.subarray(0, readSync(fd, found, 0, HEADER_LENGTH, 0)));
      if (reading !== 'damaged' && 'otherVersion' in reading) {
        throw new PantalaError(
          'failed-precondition',
          `${path} was written by another version of Pantala (format ${reading.otherVersion}); remove the directory to start with an empty store`,
        );
      }
      if (reading === 'damaged') {
        ftruncateSync(fd);
        writeSync(fd, encodeHeader(bootId), 0, HEADER_LENGTH, 0);
        return { journal: new Journal(path, fd, HEADER_LENGTH, bootId), otherBoot: false, cutBytes: 0 };
      }
      const { size, cutBytes } = replayRecords(fd, replay);
      ftruncateSync(fd, size);
      return { journal: new Journal(path, fd, size, bootId), otherBoot: !reading.bootId.equals(bootId), cutBytes };
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Bytes, with those that are still to be written. */
  get size(): number {
    return this.#size + this.#pendingLength;
  }

  /**
   * Takes a record; it is in the file when `flushed` resolves. Returns the offset that it will have.
   *
   * @param keep write it later when it cannot be written now (a record that takes something back)
   */
  append(record: Buffer, keep = false): number {
    if (this.#closed) throw new PantalaError('unavailable', 'the store is closed');
    const offset = this.size;
    this.#pending.push(record);
    if (keep) this.#kept.push(record);
    this.#pendingLength += record.length;
    if (this.#flush === undefined) {
      this.#flush = new Deferred();
      setImmediate(() => this.flushNow());
    }
    return offset;
  }

  /**
   * Resolves when everything appended so far is in the file.
   *
   * @throws `disk-full` and other errors of write(2): the records are void then
   */
  flushed(): Promise<void> {
    return this.#flush?.promise ?? Promise.resolve();
  }

  flushNow(): void {
    if (this.#pendingLength === 0) return;
    const flush = this.#flush;
    this.#flush = undefined;
    const bytes = this.#pending.length === 1 ? (this.#pending[0] as Buffer) : Buffer.concat(this.#pending);
    try {
      writeFully(this.#fd, bytes, this.#size);
    } catch (error) {
      // The torn bytes are beyond #size: the next record goes over them.
      this.#pending = this.#kept.slice();
      this.#pendingLength = this.#pending.reduce((sum, record) => sum + record.length, 0);
      flush?.reject(PantalaError.from(error));
      return;
    }
    this.#size += bytes.length;
    this.#pending = [];
    this.#kept = [];
    this.#pendingLength = 0;
    this.#unsynced = true;
    flush?.resolve();
  }

  /** Whether the file has every record that must not be lost; tries once more when not. */
  settle(): boolean {
    if (this.#kept.length > 0) this.flushNow();
    return this.#kept.length === 0;
  }

  /** Bytes of a record that was appended. */
  readAt(offset: number, length: number): Buffer {
    if (offset + length > this.#size) this.flushNow();
    const bytes = Buffer.allocUnsafe(length);
    const read = readSync(this.#fd, bytes, 0, length, offset);
    if (read < length) throw new PantalaError('data-loss', `${this.#path} ends at ${offset + read}, inside a record`);
    return bytes;
  }

  /** Asks the disk to keep what was written, so that a power loss costs the last seconds alone. */
  async sync(): Promise<void> {
    this.flushNow();
    if (!this.#unsynced || this.#compacting) return;
    this.#unsynced = false;
    await syncFile(this.#fd);
  }

  /**
   * Replaces the journal by a new one that says the same in as few records as possible. What is appended meanwhile is
   * in both: replaying a record onto a snapshot that has its effect already changes nothing.
   *
   * @param snapshots read lazily, over several turns of the event loop
   * @param shifted told that records from `start` on, unless they are in a snapshot, went `by` bytes further
   */
  async compact(snapshots: Iterable<Snapshot>, shifted: (start: number, by: number) => void): Promise<void> {
    if (this.#compacting) return;
    this.#compacting = true;
    this.flushNow();
    const start = this.#size;
    const newPath = `${this.#path}.new`;
    const fd = openSync(newPath, constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, 0o600);
    try {
      let size = 0;
      let batch: Buffer[] = [encodeHeader(this.#bootId)];
      let batchLength = HEADER_LENGTH;
      const moves: (() => void)[] = [];
      const writeBatch = async () => {
        const bytes = Buffer.concat(batch);
        batch = [];
        batchLength = 0;
        for (let done = 0; done < bytes.length; ) {
          done += (await writeFile(fd, bytes, done, bytes.length - done, size + done)).bytesWritten;
        }
        size += bytes.length;
      };
      for (const { records, moved } of snapshots) {
        const offset = size + batchLength;
        moves.push(() => moved(offset));
        batch.push(records);
        batchLength += records.length;
        if (batchLength >= CHUNK_LENGTH) await writeBatch();
      }
      await writeBatch();
      await syncFile(fd);
      // From here to the end nothing else runs.
      this.flushNow();
      const tail = this.readAt(start, this.#size - start);
      writeFully(fd, tail, size);
      renameSync(newPath, this.#path);
      closeSync(this.#fd);
      this.#fd = fd;
      this.#size = size + tail.length;
      shifted(start, size - start);
      for (const move of moves) move();
    } catch (error) {
      // The journal is as it was; what there is of the new one only takes room.
      closeSync(fd);
      rmSync(newPath, { force: true });
      throw PantalaError.from(error);
    } finally {
      this.#compacting = false;
    }
  }

  /** Writes what is pending; nothing can be appended afterwards. */
  close(): void {
    this.flushNow();
    this.#closed = true;
    this.#pendingLength = 0;
    closeSync(this.#fd);
  }
}

function writeFully(fd: number, bytes: Buffer, position: number): void {
  for (let done = 0; done < bytes.length; ) {
    done += writeSync(fd, bytes, done, bytes.length - done, position + done);
  }
}

/** Reads records up to the first that is none; what follows is cut off. */
function replayRecords(fd: number, replay: Replay): { size: number; cutBytes: number } {
  let size = HEADER_LENGTH;
  let bytes: Buffer = Buffer.alloc(0);
  const chunk = Buffer.allocUnsafe(MAX_RECORD_LENGTH + FRAME_LENGTH + CHUNK_LENGTH);
  for (;;) {
    bytes.copy(chunk);
    const read = readSync(fd, chunk, bytes.length, chunk.length - bytes.length, size + bytes.length);
    bytes = chunk.subarray(0, bytes.length + read);
    let offset = 0;
    let payload = payloadAt(bytes, offset);
    while (typeof payload !== 'string') {
      const record = decodeRecord(payload);
      if (record !== undefined) replay(record, size + offset);
      offset += FRAME_LENGTH + payload.length;
      payload = payloadAt(bytes, offset);
    }
    size += offset;
    bytes = bytes.subarray(offset);
    if (payload === 'damaged' || read === 0) return { size, cutBytes: bytes.length };
  }
}
