import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  abortable,
  Geometry,
  isTaskId,
  type Logger,
  Lru,
  type Metrics,
  noMetrics,
  PantalaError,
  silentLogger,
} from '@pantala/base';
import { Collector } from './collector.ts';
import type { StoredTask, TaskDescription, TaskStore } from './contract.ts';
import { Journal, type RecoveredJournal, type Snapshot } from './journal.ts';
import {
  CREATED_FIXED_LENGTH,
  encodeBare,
  encodeCreated,
  encodeUsed,
  MAX_DESCRIPTION_LENGTH,
} from './journal-format.ts';
import type { JournaledTask, TaskHost } from './journaled-task.ts';
import { lockDirectory } from './lock.ts';
import { type StoreMetrics, storeMetrics } from './metrics.ts';
import { type CompiledStoreOptions, compileStoreOptions, type StoreOptions } from './options.ts';
import { Replay } from './replay.ts';
import { FileTask } from './task.ts';
import { TaskFiles } from './task-files.ts';
import { Verifier } from './verification.ts';

/** The largest content that a store takes: ext4 has no larger files, and a bitmap of it is 128 MiB. */
export const MAX_CONTENT_LENGTH = 16 * 1024 ** 4;

/** Descriptions kept in memory; the others are read from the journal when they are asked for. */
const MAX_DESCRIPTIONS = 1024;

/** Milliseconds between two batches of times of use, and between two syncs of the journal: what a power loss costs. */
const HOUSEKEEPING_INTERVAL = 30_000;

/** A journal below this size is never worth a compaction. */
const MIN_COMPACTED_LENGTH = 4 * 1024 * 1024;

/** Bytes written between two looks at the disk, besides the regular ones. */
const DISK_CHECK_LENGTH = 512 * 1024 * 1024;

/** Milliseconds that `create` waits for what a power loss left to be verified, before it lets the caller begin. */
const VERIFICATION_WAIT = 1000;

export interface StoreParts {
  readonly logger?: Logger;
  readonly metrics?: Metrics;
  /** Told of each task that the store let go of by itself, for its age or for room. */
  readonly evicted?: (taskId: string) => void;
}

/**
 * Opens the store of a directory, with everything that was held when it was closed or killed.
 *
 * @throws `failed-precondition` when another process has it or it is of another version
 */
export async function openStore(given: StoreOptions, parts: StoreParts = {}): Promise<TaskStore> {
  const options = compileStoreOptions(given);
  mkdirSync(options.directory, { recursive: true, mode: 0o700 });
  const lock = lockDirectory(join(options.directory, 'lock'));
  try {
    return await FileStore.open(options, lock, parts);
  } catch (error) {
    lock[Symbol.dispose]();
    throw PantalaError.from(error);
  }
}

class FileStore implements TaskStore, TaskHost {
  readonly files: TaskFiles;
  readonly descriptions = new Lru<string, TaskDescription>(MAX_DESCRIPTIONS);
  readonly options: CompiledStoreOptions;
  readonly logger: Logger;
  readonly metrics: StoreMetrics;
  readonly evicted: (taskId: string) => void;
  readonly #lock: Disposable;
  readonly #tasks = new Map<string, FileTask>();
  readonly #usedTasks = new Set<JournaledTask>();
  readonly #closing = new AbortController();
  readonly #verifier = new Verifier(this.#closing.signal);
  readonly #collector: Collector;
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #background = new Set<Promise<void>>();
  #recovered: RecoveredJournal | undefined;
  #bytes = 0;
  #nextSerial = 1;
  /** Bytes of the records that a compaction would keep, about. */
  #liveLength = 0;
  #writtenSinceCheck = 0;

  private constructor(options: CompiledStoreOptions, lock: Disposable, parts: StoreParts) {
    this.options = options;
    this.logger = parts.logger ?? silentLogger;
    this.metrics = storeMetrics(parts.metrics ?? noMetrics, () => this.usage);
    this.evicted = parts.evicted ?? (() => {});
    this.#lock = lock;
    this.files = new TaskFiles(options.directory, options.maxOpenTasks);
    this.#collector = new Collector(this);
  }

  static async open(options: CompiledStoreOptions, lock: Disposable, parts: StoreParts): Promise<FileStore> {
    const store = new FileStore(options, lock, parts);
    await store.#recover();
    return store;
  }

  get journal(): Journal {
    if (this.#recovered === undefined) throw new PantalaError('internal', 'the journal is not open yet');
    return this.#recovered.journal;
  }

  get usage(): { readonly tasks: number; readonly bytes: number } {
    return { tasks: this.#tasks.size, bytes: this.#bytes };
  }

  get(id: string): StoredTask | undefined {
    const task = this.#tasks.get(id);
    task?.refresh();
    if (task?.suspected) this.#verifier.add(task, true);
    return task;
  }

  async create(description: TaskDescription): Promise<StoredTask> {
    this.assertOpen();
    const known = this.#tasks.get(description.id);
    if (known === undefined) return this.#add(description);
    if (known.contentLength !== description.contentLength) {
      throw new PantalaError(
        'failed-precondition',
        `task ${known.id} has ${known.contentLength} bytes here, not ${description.contentLength}; remove it first if the content has changed`,
      );
    }
    known.refresh();
    if (known.suspected) await this.#verifyForAWhile(known);
    return known;
  }

  async remove(id: string): Promise<void> {
    const task = this.#tasks.get(id);
    if (task !== undefined) await this.evict(task);
  }

  async void(id: string): Promise<void> {
    await this.#tasks.get(id)?.void();
  }

  *tasks(): Generator<FileTask> {
    yield* this.#tasks.values();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#closing.signal.aborted) return;
    this.#closing.abort(new PantalaError('cancelled', 'the store is closed'));
    for (const timer of this.#timers) clearInterval(timer);
    for (const task of this.#tasks.values()) task.closed();
    await this.#verifier.stopped();
    await Promise.all(this.#background);
    this.#recordUses();
    try {
      await this.journal.sync();
    } finally {
      this.files.closeAll();
      this.journal.close();
      this.#lock[Symbol.dispose]();
    }
  }

  // What tasks and the collector need.

  now(): number {
    return Date.now();
  }

  usedBytes(): number {
    return this.#bytes;
  }

  grew(bytes: number): void {
    this.#bytes += bytes;
    if (bytes <= 0) return;
    this.#writtenSinceCheck += bytes;
    if (this.#writtenSinceCheck < DISK_CHECK_LENGTH || this.#recovered === undefined) return;
    this.#writtenSinceCheck = 0;
    this.#inBackground('looking at the disk', this.#collector.checkDisk());
  }

  used(task: JournaledTask): void {
    task.usedAt = this.now();
    this.#usedTasks.add(task);
  }

  makeRoom(bytes: number): Promise<boolean> {
    return this.#collector.makeRoom(bytes);
  }

  suspected(task: JournaledTask): void {
    this.#verifier.add(task, false);
  }

  voided(task: JournaledTask, reason: PantalaError | undefined): void {
    this.metrics.voided.add();
    this.logger.warn('everything that a task held was dropped', { task: task.id, reason: reason?.message });
  }

  damaged(blocks: number): void {
    if (blocks > 0) this.metrics.damagedBlocks.add(blocks);
  }

  async evict(task: FileTask): Promise<void> {
    if (this.#tasks.get(task.id) !== task) return;
    this.#tasks.delete(task.id);
    this.#usedTasks.delete(task);
    this.descriptions.delete(task.id);
    this.#liveLength -= CREATED_FIXED_LENGTH + task.descriptionLength;
    this.journal.append(encodeBare('removed', task.serial), true);
    this.journal.settle();
    await task.removed();
  }

  async #add(description: TaskDescription): Promise<FileTask> {
    const { id, contentLength, pieceLength, ...rest } = description;
    if (!isTaskId(id)) throw new PantalaError('invalid-argument', `"${id.slice(0, 80)}" is no task id`);
    // Lengths that are no lengths must not come as far as the journal.
    void new Geometry(contentLength, pieceLength);
    if (contentLength > MAX_CONTENT_LENGTH) {
      throw new PantalaError(
        'invalid-argument',
        `content of ${contentLength} bytes is more than ${MAX_CONTENT_LENGTH}`,
      );
    }
    const json = Buffer.from(JSON.stringify(rest));
    if (json.length > MAX_DESCRIPTION_LENGTH) {
      throw new PantalaError(
        'invalid-argument',
        `a description of ${json.length} bytes is more than ${MAX_DESCRIPTION_LENGTH}`,
      );
    }
    const now = this.now();
    const fixed = { serial: this.#nextSerial++, id, createdAt: now, usedAt: now, contentLength, pieceLength };
    const record = encodeCreated({ ...fixed, description: json });
    const recordAt = this.journal.append(record);
    const task = new FileTask(this, { ...fixed, recordAt, descriptionLength: json.length });
    this.#tasks.set(id, task);
    this.descriptions.set(id, description);
    this.#liveLength += record.length;
    task.creating = true;
    try {
      await this.journal.flushed();
    } catch (error) {
      if (this.#tasks.get(id) === task) await this.evict(task);
      throw error;
    } finally {
      task.creating = false;
    }
    task.completeIfEmpty();
    return task;
  }

  async #verifyForAWhile(task: FileTask): Promise<void> {
    this.#verifier.add(task, true);
    const verified = new Promise<void>((resolve) => {
      const look = () => {
        if (!task.suspected) resolve();
        else if (!this.#closing.signal.aborted) setImmediate(look);
      };
      look();
    });
    await abortable(verified, AbortSignal.timeout(VERIFICATION_WAIT)).catch(() => {});
  }

  async #recover(): Promise<void> {
    const path = join(this.options.directory, 'journal');
    const replay = new Replay(this.#tasks, (record) => new FileTask(this, record));
    this.#recovered = Journal.recover(path, bootId(), (record, offset) => replay.add(record, offset));
    this.#nextSerial = replay.nextSerial;
    this.#liveLength = replay.liveLength;
    const { journal, otherBoot, cutBytes } = this.#recovered;
    if (cutBytes > 0) this.logger.warn('the journal ended inside a record', { path, cutBytes });
    for (const task of this.#tasks.values()) {
      task.recovered();
      task.completeIfEmpty();
      if (otherBoot) task.suspectAll();
      if (task.suspected) this.#verifier.add(task, false);
    }
    if (otherBoot) {
      // Until this has happened once, every start takes everything for suspect: safe, and no reason not to start.
      await this.#compact().catch((error: unknown) => {
        this.logger.warn('the journal could not be compacted', { path, error: PantalaError.from(error).message });
      });
    }
    this.#inBackground('sweeping', this.#sweep());
    this.#every(HOUSEKEEPING_INTERVAL, 'housekeeping', () => this.#keepHouse());
    this.#every(this.options.collectInterval, 'collecting', () => this.#collector.collect());
    this.logger.debug('store open', { ...this.usage, journalBytes: journal.size });
  }

  async #sweep(): Promise<void> {
    const removed = await this.files.sweep((id) => this.#tasks.has(id));
    if (removed > 0) this.logger.info('files that no task knows were removed', { removed });
  }

  async #keepHouse(): Promise<void> {
    this.#recordUses();
    await this.journal.sync();
    if (this.journal.size > MIN_COMPACTED_LENGTH && this.journal.size > 2 * this.#liveLength) await this.#compact();
  }

  #recordUses(): void {
    if (this.#usedTasks.size === 0) return;
    const uses = [...this.#usedTasks].map(({ serial, usedAt }) => ({ serial, usedAt }));
    this.#usedTasks.clear();
    this.journal.append(encodeUsed(uses));
    this.journal.flushNow();
  }

  async #compact(): Promise<void> {
    const before = this.journal.size;
    await this.journal.compact(this.#snapshots(), (start, by) => {
      for (const task of this.#tasks.values()) if (task.recordAt >= start) task.recordAt += by;
    });
    // What stands there now is all needed: the next one is worth it when it has doubled.
    this.#liveLength = this.journal.size;
    this.logger.debug('journal compacted', { before, after: this.journal.size });
  }

  *#snapshots(): Generator<Snapshot> {
    for (const task of this.#tasks.values()) {
      yield {
        records: task.snapshot(),
        moved: (offset) => {
          task.recordAt = offset;
        },
      };
    }
  }

  #every(interval: number, what: string, work: () => Promise<void>): void {
    const timer = setInterval(() => this.#inBackground(what, work()), Math.min(interval, 0x7fff_ffff));
    timer.unref();
    this.#timers.push(timer);
  }

  #inBackground(what: string, work: Promise<void>): void {
    const done = work
      .catch((error: unknown) => {
        this.logger.error(`${what} failed`, { error: PantalaError.from(error).message });
      })
      .finally(() => this.#background.delete(done));
    this.#background.add(done);
  }

  assertOpen(): void {
    if (this.#closing.signal.aborted) throw new PantalaError('unavailable', 'the store is closed');
  }
}

/** The kernel's id of this start of the machine; zeros where it tells none, which equal nothing that it would tell. */
function bootId(): Buffer {
  try {
    const text = readFileSync('/proc/sys/kernel/random/boot_id', 'latin1');
    return Buffer.from(text.replaceAll(/[^0-9a-f]/g, ''), 'hex');
  } catch {
    return Buffer.alloc(16);
  }
}
