import {
  type BlockRun,
  type ByteRange,
  crc32,
  DIGEST_LENGTH,
  Listeners,
  type Lru,
  lengthOf,
  PantalaError,
  pieceDigest,
} from '@pantala/base';
import type { DataLease, StoredTask, StoreEvent, TaskDescription, Trust } from './contract.ts';
import { factsOf, readRange, sameContent, writeAt } from './file-io.ts';
import type { Journal } from './journal.ts';
import {
  CREATED_FIXED_LENGTH,
  encodeBare,
  encodeComplete,
  encodeLinked,
  encodeRuns,
  type InodeFacts,
} from './journal-format.ts';
import { copyOut, linkOut } from './outputs.ts';
import type { Flight } from './partial.ts';
import { type Accounts, TaskContent } from './task-content.ts';
import type { OpenFiles, TaskFiles } from './task-files.ts';
import { damagedBlocks } from './verification.ts';

/** Blocks that are checked in one go: 1 MiB. */
const VERIFIED_AT_ONCE = 64;

/** What a task needs of the store that it belongs to. */
export interface TaskHost extends Accounts {
  readonly journal: Journal;
  readonly files: TaskFiles;
  /** Descriptions that were asked for lately; the others lie in the journal. */
  readonly descriptions: Lru<string, TaskDescription>;
  now(): number;
  /** @throws `unavailable` once the store is closed */
  assertOpen(): void;
  used(task: FileTask): void;
  /** Evicts other tasks; false when nothing could be. */
  makeRoom(bytes: number): Promise<boolean>;
  /** Blocks of the task wait to be verified. */
  suspected(task: FileTask): void;
  voided(task: FileTask, reason: PantalaError | undefined): void;
  damaged(blocks: number): void;
}

export interface TaskRecord {
  readonly serial: number;
  readonly id: string;
  readonly createdAt: number;
  readonly usedAt: number;
  readonly contentLength: number;
  readonly pieceLength: number;
  /** Where in the journal its record begins, and how many bytes of description it has. */
  readonly recordAt: number;
  readonly descriptionLength: number;
}

/** A task whose content is one sparse file. */
export class FileTask extends TaskContent implements StoredTask {
  readonly id: string;
  readonly serial: number;
  readonly createdAt: number;
  /** Milliseconds since the epoch of the last read or write. */
  usedAt: number;
  /** Where the journal has its description. */
  recordAt: number;
  readonly descriptionLength: number;
  readonly #host: TaskHost;
  #linked: InodeFacts | undefined;
  #listeners: Listeners<StoreEvent> | undefined;
  #crcs: Map<number, number> | undefined;
  /** Counts how often everything was void: what began before knows that it is too late. */
  #epoch = 0;

  constructor(host: TaskHost, record: TaskRecord) {
    super(host, record.contentLength, record.pieceLength);
    this.#host = host;
    this.id = record.id;
    this.serial = record.serial;
    this.createdAt = record.createdAt;
    this.usedAt = record.usedAt;
    this.recordAt = record.recordAt;
    this.descriptionLength = record.descriptionLength;
  }

  get description(): TaskDescription {
    const known = this.#host.descriptions.get(this.id);
    if (known !== undefined) return known;
    const json = this.#host.journal.readAt(this.recordAt + CREATED_FIXED_LENGTH, this.descriptionLength);
    const description: TaskDescription = {
      ...(JSON.parse(json.toString()) as Omit<TaskDescription, 'id' | 'contentLength' | 'pieceLength'>),
      id: this.id,
      contentLength: this.contentLength,
      pieceLength: this.pieceLength,
    };
    this.#host.descriptions.set(this.id, description);
    return description;
  }

  get linked(): InodeFacts | undefined {
    return this.#linked;
  }

  /** Somebody reads, writes or watches it while it is not complete. */
  get busy(): boolean {
    if (this.#host.files.isPinned(this.id) || this.partial?.busy) return true;
    return !this.complete && (this.#listeners?.size ?? 0) > 0;
  }

  async write(run: BlockRun, data: Buffer, digests: Buffer, trust: Trust): Promise<void> {
    this.#assertRun(run, data, digests);
    const epoch = this.#epoch;
    // A file with another name is somebody else's too: it is never written to, only found right or dropped.
    if (this.#linked !== undefined && !this.complete) await this.part().verified.promise;
    using flight = await this.#takeOff(run);
    if (flight === undefined) return;
    const { partial } = flight;
    try {
      this.#assertEpoch(epoch);
      const missing = partial.missing(run, trust);
      if (missing.length === 0) return;
      const start = this.geometry.blockRange(run.first).start;
      using files = this.#pin();
      for (const part of missing) {
        const range = this.geometry.runRange(part);
        const bytes = data.subarray(range.start - start, range.end - start);
        await writeAt(files.data, bytes, range.start, (length) => this.#host.makeRoom(length));
      }
      this.#assertEpoch(epoch);
      for (const part of missing) {
        const from = (part.first - run.first) * DIGEST_LENGTH;
        const bytes = digests.subarray(from, from + part.count * DIGEST_LENGTH);
        files.writeDigests(bytes, part.first * DIGEST_LENGTH);
      }
      if (trust === 'checked') await this.#reveal(missing, epoch);
      else this.hide(missing);
    } catch (error) {
      throw PantalaError.from(error);
    }
  }

  async promote(): Promise<void> {
    const epoch = this.#epoch;
    const runs = [...this.provisional.runs(true)];
    if (runs.length > 0) await this.#reveal(runs, epoch);
  }

  discardProvisional(): void {
    this.dropProvisional();
  }

  blockDigests(run: BlockRun): Buffer | undefined {
    if (run.count <= 0 || !this.blocks.hasAll(run)) return undefined;
    using files = this.#pin();
    const digests = Buffer.allocUnsafe(run.count * DIGEST_LENGTH);
    files.readDigests(digests, run.first * DIGEST_LENGTH);
    return digests;
  }

  pieceDigest(piece: number): Buffer | undefined {
    const digests = this.blockDigests(this.geometry.pieceBlocks(piece));
    return digests === undefined ? undefined : pieceDigest(digests);
  }

  async pieceCrc32(piece: number): Promise<number> {
    const known = this.#crcs?.get(piece);
    if (known !== undefined) return known;
    const epoch = this.#epoch;
    const range = this.geometry.pieceRange(piece);
    const step = VERIFIED_AT_ONCE * 16 * 1024;
    let crc = 0;
    for (let start = range.start; start < range.end; start += step) {
      crc = crc32(await this.read({ start, end: Math.min(start + step, range.end) }), crc);
    }
    this.#assertEpoch(epoch);
    this.#crcs ??= new Map();
    this.#crcs.set(piece, crc);
    return crc;
  }

  async read(range: ByteRange): Promise<Buffer> {
    if (!this.has(range)) {
      throw new PantalaError('failed-precondition', `bytes ${range.start}-${range.end} of ${this.id} are not held`);
    }
    const epoch = this.#epoch;
    using files = this.#pin();
    this.#host.used(this);
    const data = await readRange(files.data, range);
    this.#assertEpoch(epoch);
    return data;
  }

  lease(): DataLease {
    const files = this.#pin();
    this.#host.used(this);
    let held = true;
    return {
      fd: files.data,
      [Symbol.dispose]() {
        if (held) files[Symbol.dispose]();
        held = false;
      },
    };
  }

  async copyTo(path: string, options: { readonly overwrite: boolean; readonly signal?: AbortSignal }): Promise<void> {
    this.#assertComplete();
    const epoch = this.#epoch;
    using files = this.#pin();
    this.#host.used(this);
    await copyOut(files.data, this.contentLength, path, { ...options, check: () => this.#assertEpoch(epoch) });
  }

  async linkTo(path: string): Promise<void> {
    this.#assertComplete();
    using files = this.#pin();
    this.#host.used(this);
    // Known as linked before it is, with a time that never fits: after a crash in between it is verified.
    const before = factsOf(files.data);
    this.#setLinked({ ...before, changedNs: 0n });
    await this.#host.journal.flushed();
    try {
      await linkOut(this.#host.files.dataPath(this.id), files.data, path);
    } finally {
      const after = factsOf(files.data);
      if (sameContent(before, after)) this.#setLinked(after);
    }
    await this.#host.journal.flushed();
  }

  subscribe(listener: (event: StoreEvent) => void): Disposable {
    this.#listeners ??= new Listeners();
    return this.#listeners.subscribe(listener);
  }

  /** Forgets everything held. The files are out of the way and the journal knows it before this returns. */
  async void(reason?: PantalaError): Promise<void> {
    this.#forget();
    this.#host.journal.append(encodeBare('void', this.serial), true);
    this.#host.journal.settle();
    const freed = this.#host.files.discard(this.id);
    this.#host.voided(this, reason);
    this.#listeners?.emit({ kind: 'void' });
    this.completeIfEmpty();
    await freed;
  }

  /** The store has let go of it. */
  async removed(): Promise<void> {
    this.#forget();
    const freed = this.#host.files.discard(this.id);
    this.#listeners?.emit({ kind: 'void' });
    await freed;
  }

  /** The store closes: nobody may wait for a verification that does not come. */
  closed(): void {
    if (this.#linked !== undefined) this.partial?.verified.resolve();
    this.#epoch++;
  }

  /** A task without content is complete from the start. */
  completeIfEmpty(): void {
    if (this.contentLength === 0 && !this.complete) this.#finish();
  }

  /** Looks whether a linked file was changed through its other name. */
  refresh(): void {
    if (this.#linked === undefined) return;
    try {
      this.#pin()[Symbol.dispose]();
    } catch {
      // Whatever it was, the task says now what it still holds.
    }
  }

  recoverLinked(facts: InodeFacts): void {
    this.#linked = facts;
  }

  override recoverVoid(): void {
    super.recoverVoid();
    this.#linked = undefined;
  }

  /** Everything that is held must be verified before anybody sees it. */
  suspectAll(): void {
    const held = [...this.blocks.runs(true)];
    if (held.length === 0) return;
    this.#epoch++;
    this.doubt(held);
    this.#host.journal.append(encodeRuns('suspect', this.serial, held), true);
    this.#listeners?.emit({ kind: 'void' });
    this.#host.suspected(this);
  }

  /** Checks a part of the suspect blocks against their digests; false when none are left. */
  async verifySome(): Promise<boolean> {
    const epoch = this.#epoch;
    const first = this.suspect.next(true, 0);
    if (first === this.geometry.blockCount) return false;
    const [suspects] = this.suspect.runs(true, { first, count: VERIFIED_AT_ONCE });
    using flight = await this.#takeOff(suspects as BlockRun);
    if (flight === undefined) return false;
    try {
      using files = this.#open();
      if (this.#linked !== undefined) flight.partial.linkFacts ??= factsOf(files.data);
      // Blocks that were written anew meanwhile are suspect no longer.
      const runs = [...this.suspect.runs(true, suspects)];
      for (const run of runs) await this.#verifyRun(files, run, epoch);
      return true;
    } catch (error) {
      const reason = PantalaError.from(error);
      // Anything but wrong bytes passes (no descriptors, no room in the journal): the next who asks tries again. But
      // what waits to write to a linked file needs an outcome.
      const wrong = reason.code === 'data-loss' || this.#linked !== undefined;
      if (wrong && epoch === this.#epoch) await this.void(reason);
      return false;
    }
  }

  async #verifyRun(files: OpenFiles, run: BlockRun, epoch: number): Promise<void> {
    const data = await readRange(files.data, this.geometry.runRange(run));
    const digests = Buffer.alloc(run.count * DIGEST_LENGTH);
    files.readDigests(digests, run.first * DIGEST_LENGTH);
    this.#assertEpoch(epoch);
    const damaged = damagedBlocks(this.geometry, run, data, digests);
    this.#host.damaged(damaged.length);
    if (damaged.length > 0 && this.#linked !== undefined) {
      throw new PantalaError('data-loss', `the file of ${this.id} was changed through its hard link`);
    }
    this.dropSuspect(damaged);
    const good = [...this.suspect.runs(true, run)];
    if (good.length > 0) await this.#reveal(good, epoch);
  }

  /** Takes blocks once nobody else has any of them under way; undefined when the task is complete by then. */
  async #takeOff(run: BlockRun): Promise<Flight | undefined> {
    while (!this.complete) {
      const flight = this.part().takeOff(run);
      if (!(flight instanceof Promise)) return flight;
      await flight;
    }
    return undefined;
  }

  /** Journals blocks and then shows them. */
  async #reveal(runs: readonly BlockRun[], epoch: number): Promise<void> {
    const { journal } = this.#host;
    journal.append(encodeRuns('blocks', this.serial, runs));
    await journal.flushed();
    this.#assertEpoch(epoch);
    // Somebody else may have brought the same blocks meanwhile (a promotion takes none for itself).
    if (this.complete) return;
    const partial = this.hold(runs);
    this.#host.used(this);
    for (const run of runs) this.#listeners?.emit({ kind: 'blocks', run });
    // A listener may have made everything void.
    if (epoch === this.#epoch && partial.blocks.count === this.geometry.blockCount) this.#finish();
  }

  #finish(): void {
    if (this.#linked !== undefined && !this.#settleLink()) return;
    const { partial } = this;
    const completedAt = this.#host.now();
    this.finish(completedAt);
    this.#host.journal.append(encodeComplete(this.serial, completedAt));
    if (this.#linked !== undefined) partial?.verified.resolve();
    this.#listeners?.emit({ kind: 'complete' });
  }

  /** Whether a linked file is what it was when its verification began; if not, that begins anew. */
  #settleLink(): boolean {
    using files = this.#open();
    const facts = factsOf(files.data);
    const known = this.partial?.linkFacts;
    if (known !== undefined && sameContent(known, facts) && known.changedNs === facts.changedNs) {
      this.#setLinked(facts);
      return true;
    }
    if (this.partial !== undefined) this.partial.linkFacts = undefined;
    this.suspectAll();
    return false;
  }

  #forget(): void {
    this.#epoch++;
    if (this.#linked !== undefined) this.partial?.verified.resolve();
    this.recoverVoid();
    this.#crcs = undefined;
  }

  #open(): OpenFiles {
    this.#host.assertOpen();
    // The bytes of a task without any need no file; it is made when somebody wants a descriptor.
    const readOnly = this.complete || this.#linked !== undefined;
    const mode = this.bytes === 0 ? 'create' : readOnly ? 'read' : 'extend';
    if (mode === 'create' && !this.#host.journal.settle()) {
      throw new PantalaError('disk-full', 'the journal has no room for what must be known before a new file is made');
    }
    return this.#host.files.pin(this.id, this.contentLength, mode);
  }

  /** The open files, when they are what the store knows. @throws `data-loss`: the task is void then */
  #pin(): OpenFiles {
    try {
      const files = this.#open();
      try {
        if (this.#linked !== undefined) this.#assertUnchanged(files, this.#linked);
        return files;
      } catch (error) {
        files[Symbol.dispose]();
        throw error;
      }
    } catch (thrown) {
      const error = PantalaError.from(thrown);
      if (error.code === 'data-loss') this.void(error).catch(() => {});
      throw error;
    }
  }

  #assertUnchanged(files: OpenFiles, known: InodeFacts): void {
    const facts = factsOf(files.data);
    if (!sameContent(facts, known)) {
      throw new PantalaError('data-loss', `the file of ${this.id} was changed through its hard link`);
    }
    if (facts.changedNs === known.changedNs || this.suspected) return;
    // Renaming or removing the other name changes this time too, but so does who sets back the others.
    this.suspectAll();
    throw new PantalaError('failed-precondition', `the file of ${this.id} must be verified after a change of its link`);
  }

  #setLinked(facts: InodeFacts): void {
    this.#linked = facts;
    this.#host.journal.append(encodeLinked(this.serial, facts));
  }

  #assertRun(run: BlockRun, data: Buffer, digests: Buffer): void {
    const { geometry } = this;
    const valid =
      run.first >= 0 &&
      run.count > 0 &&
      run.first + run.count <= geometry.blockCount &&
      geometry.pieceOfBlock(run.first) === geometry.pieceOfBlock(run.first + run.count - 1);
    if (!valid) {
      throw new PantalaError('invalid-argument', `blocks ${run.first}+${run.count} are not of one piece of ${this.id}`);
    }
    const length = lengthOf(geometry.runRange(run));
    if (data.length !== length || digests.length !== run.count * DIGEST_LENGTH) {
      throw new PantalaError(
        'invalid-argument',
        `${run.count} blocks of ${length} bytes came with ${data.length} bytes and ${digests.length} bytes of digests`,
      );
    }
  }

  #assertComplete(): void {
    if (!this.complete) throw new PantalaError('failed-precondition', `task ${this.id} is not complete`);
  }

  #assertEpoch(epoch: number): void {
    if (epoch !== this.#epoch) throw new PantalaError('cancelled', `what task ${this.id} held is void`);
  }
}
