import { fstatSync, read as readCallback, write as writeCallback } from 'node:fs';
import { promisify } from 'node:util';
import {
  Bitmap,
  type BlockRun,
  type ByteRange,
  crc32,
  Deferred,
  DIGEST_LENGTH,
  Geometry,
  Listeners,
  type Lru,
  lengthOf,
  PantalaError,
  pieceDigest,
  type ReadonlyBitmap,
} from '@pantala/base';
import type { DataLease, StoredTask, StoreEvent, TaskDescription, Trust } from './contract.ts';
import type { Journal } from './journal.ts';
import {
  CREATED_FIXED_LENGTH,
  encodeBare,
  encodeComplete,
  encodeLinked,
  encodeRuns,
  type InodeFacts,
} from './journal-format.ts';
import { copyOut, factsOf, linkOut } from './outputs.ts';
import type { OpenFiles, TaskFiles } from './task-files.ts';
import { UniformBitmap } from './uniform-bitmap.ts';
import { damagedBlocks } from './verification.ts';

const readFile = promisify(readCallback);
const writeFile = promisify(writeCallback);

/** Blocks that are checked in one go: 1 MiB. */
const VERIFIED_AT_ONCE = 64;

/** What a task needs of the store that it belongs to. */
export interface TaskHost {
  readonly journal: Journal;
  readonly files: TaskFiles;
  /** Descriptions that were asked for lately; the others lie in the journal. */
  readonly descriptions: Lru<string, TaskDescription>;
  now(): number;
  /** Told that the task's blocks take so many bytes more. */
  grew(bytes: number): void;
  used(task: FileTask): void;
  /** Evicts other tasks; false when nothing could be. */
  makeRoom(bytes: number): Promise<boolean>;
  /** Blocks of the task wait to be verified. */
  suspected(task: FileTask): void;
  voided(task: FileTask, reason: PantalaError | undefined): void;
  damaged(blocks: number): void;
}

/** A write, or a check, that is under way: nobody else touches its blocks until it is done. */
interface Flight {
  readonly run: BlockRun;
  readonly done: Deferred;
}

/** What only tasks that are neither complete nor empty need. */
interface Partial {
  readonly blocks: Bitmap;
  provisional: Bitmap | undefined;
  suspect: Bitmap | undefined;
  /** Bytes of all three. */
  bytes: number;
  /** Of a linked file that is being verified: what it was when that began, and who waits for the end. */
  verifying: { readonly facts: InodeFacts; readonly done: Deferred } | undefined;
  readonly flights: Set<Flight>;
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

/** A task whose content is one sparse file. There may be 100,000 of these: what is rare is in `#partial`. */
export class FileTask implements StoredTask {
  readonly id: string;
  readonly serial: number;
  readonly contentLength: number;
  readonly pieceLength: number;
  readonly createdAt: number;
  /** Milliseconds since the epoch of the last read or write. */
  usedAt: number;
  /** Where the journal has its description. */
  recordAt: number;
  readonly descriptionLength: number;
  readonly #host: TaskHost;
  #completedAt: number | undefined;
  #linked: InodeFacts | undefined;
  #partial: Partial | undefined;
  #geometry: Geometry | undefined;
  #listeners: Listeners<StoreEvent> | undefined;
  #crcs: Map<number, number> | undefined;
  /** Counts how often everything was void: what began before knows that it is too late. */
  #epoch = 0;

  constructor(host: TaskHost, record: TaskRecord) {
    this.#host = host;
    this.id = record.id;
    this.serial = record.serial;
    this.contentLength = record.contentLength;
    this.pieceLength = record.pieceLength;
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

  get geometry(): Geometry {
    this.#geometry ??= new Geometry(this.contentLength, this.pieceLength);
    return this.#geometry;
  }

  get complete(): boolean {
    return this.#completedAt !== undefined;
  }

  get completedAt(): number | undefined {
    return this.#completedAt;
  }

  get blocks(): ReadonlyBitmap {
    return this.#partial?.blocks ?? new UniformBitmap(this.geometry.blockCount, this.complete);
  }

  get provisional(): ReadonlyBitmap {
    return this.#partial?.provisional ?? new UniformBitmap(this.geometry.blockCount, false);
  }

  /** Blocks that were held before a power loss or a change from outside, and wait to be verified. */
  get suspect(): ReadonlyBitmap {
    return this.#partial?.suspect ?? new UniformBitmap(this.geometry.blockCount, false);
  }

  get linked(): InodeFacts | undefined {
    return this.#linked;
  }

  /** Bytes of all its blocks on disk. */
  get bytes(): number {
    return this.complete ? this.contentLength : (this.#partial?.bytes ?? 0);
  }

  /** Somebody reads, writes or watches it while it is not complete. */
  get busy(): boolean {
    if (this.#host.files.isPinned(this.id) || (this.#partial?.flights.size ?? 0) > 0) return true;
    return !this.complete && (this.#listeners?.size ?? 0) > 0;
  }

  has(range: ByteRange): boolean {
    if (range.start < 0 || range.end > this.contentLength) return false;
    if (this.complete || range.start >= range.end) return true;
    return this.#partial?.blocks.hasAll(this.geometry.blocksOf(range)) ?? false;
  }

  availableFrom(offset: number): number {
    if (offset < 0 || offset >= this.contentLength) return offset;
    if (this.complete) return this.contentLength;
    if (this.#partial === undefined) return offset;
    const block = this.geometry.blockAt(offset);
    const gap = this.#partial.blocks.next(false, block);
    return gap === block ? offset : this.geometry.blockRange(gap - 1).end;
  }

  async write(run: BlockRun, data: Buffer, digests: Buffer, trust: Trust): Promise<void> {
    this.#assertRun(run, data, digests);
    const epoch = this.#epoch;
    // A file with another name is somebody else's too: it is never written to, only found right or dropped.
    if (this.#linked !== undefined && !this.complete) await this.#part().verifying?.done.promise;
    const flight = await this.#takeOff(run);
    try {
      this.#assertEpoch(epoch);
      const missing = this.#missing(run, trust);
      if (missing.length === 0) return;
      const start = this.geometry.blockRange(run.first).start;
      using files = this.#pin();
      for (const part of missing) {
        const range = this.geometry.runRange(part);
        await this.#writeData(files, data.subarray(range.start - start, range.end - start), range.start);
      }
      this.#assertEpoch(epoch);
      for (const part of missing) {
        const from = (part.first - run.first) * DIGEST_LENGTH;
        const bytes = digests.subarray(from, from + part.count * DIGEST_LENGTH);
        files.writeDigests(bytes, part.first * DIGEST_LENGTH);
      }
      if (trust === 'checked') await this.#reveal(missing, epoch);
      else this.#hide(missing);
    } catch (error) {
      throw PantalaError.from(error);
    } finally {
      this.#land(flight);
    }
  }

  async promote(): Promise<void> {
    const epoch = this.#epoch;
    const runs = [...this.provisional.runs(true)];
    if (runs.length > 0) await this.#reveal(runs, epoch);
  }

  discardProvisional(): void {
    const partial = this.#partial;
    if (partial?.provisional === undefined) return;
    for (const run of partial.provisional.runs(true)) this.#account(partial, -lengthOf(this.geometry.runRange(run)));
    partial.provisional = undefined;
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
    const data = await this.#readData(files, range);
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
    const before = factsNow(files);
    this.#setLinked({ ...before, changedNs: 0n });
    await this.#host.journal.flushed();
    try {
      await linkOut(this.#host.files.dataPath(this.id), files.data, path);
    } finally {
      const after = factsNow(files);
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

  // Recovery: what the journal says, one record after the other.

  recoverBlocks(runs: readonly BlockRun[]): void {
    if (this.complete) return;
    const partial = this.#part();
    for (const run of this.#within(runs)) {
      this.#account(partial, this.#newBytes(partial, run));
      partial.blocks.setRun(run);
      for (let block = run.first; block < run.first + run.count; block++) partial.suspect?.clear(block);
    }
    if (partial.blocks.count === this.geometry.blockCount) this.recoverComplete(this.usedAt);
  }

  recoverComplete(completedAt: number): void {
    this.#host.grew(this.contentLength - this.bytes);
    this.#partial = undefined;
    this.#completedAt = completedAt;
    // Nobody may ever ask for it, and there are many.
    this.#geometry = undefined;
  }

  recoverSuspect(runs: readonly BlockRun[]): void {
    const held = this.complete ? [{ first: 0, count: this.geometry.blockCount }] : [];
    const bytes = this.bytes;
    const partial = this.#part();
    if (this.complete) {
      this.#completedAt = undefined;
      partial.bytes = bytes;
      for (const run of held) partial.blocks.setRun(run);
    }
    partial.suspect ??= new Bitmap(this.geometry.blockCount);
    for (const run of this.#within(runs)) {
      this.#account(partial, this.#newBytes(partial, run));
      partial.suspect.setRun(run);
      for (let block = run.first; block < run.first + run.count; block++) partial.blocks.clear(block);
    }
  }

  recoverLinked(facts: InodeFacts): void {
    this.#linked = facts;
  }

  recoverVoid(): void {
    this.#host.grew(-this.bytes);
    this.#partial = undefined;
    this.#completedAt = undefined;
    this.#linked = undefined;
  }

  /** Everything that is held must be verified before anybody sees it. */
  suspectAll(): void {
    const held = [...this.blocks.runs(true)];
    if (held.length === 0) return;
    this.#epoch++;
    this.recoverSuspect(held);
    this.#host.journal.append(encodeRuns('suspect', this.serial, held), true);
    this.#listeners?.emit({ kind: 'void' });
    this.#host.suspected(this);
  }

  /** Checks a part of the suspect blocks against their digests; false when none are left. */
  async verifySome(): Promise<boolean> {
    const epoch = this.#epoch;
    const first = this.suspect.next(true, 0);
    if (first === this.geometry.blockCount) {
      if (this.#partial !== undefined) this.#partial.suspect = undefined;
      return false;
    }
    const [suspects] = this.suspect.runs(true, { first, count: VERIFIED_AT_ONCE });
    const flight = await this.#takeOff(suspects as BlockRun);
    try {
      using files = this.#open();
      if (this.#linked !== undefined) this.#part().verifying ??= { facts: factsNow(files), done: new Deferred() };
      // Blocks that were written anew meanwhile are suspect no longer.
      const runs = [...this.suspect.runs(true, suspects)];
      for (const run of runs) await this.#verifyRun(files, run, epoch);
      return true;
    } catch (error) {
      if (epoch === this.#epoch) await this.void(PantalaError.from(error));
      return false;
    } finally {
      this.#land(flight);
    }
  }

  async #verifyRun(files: OpenFiles, run: BlockRun, epoch: number): Promise<void> {
    const data = await this.#readData(files, this.geometry.runRange(run));
    const digests = Buffer.alloc(run.count * DIGEST_LENGTH);
    files.readDigests(digests, run.first * DIGEST_LENGTH);
    this.#assertEpoch(epoch);
    const damaged = damagedBlocks(this.geometry, run, data, digests);
    this.#host.damaged(damaged.length);
    if (damaged.length > 0 && this.#linked !== undefined) {
      throw new PantalaError('data-loss', `the file of ${this.id} was changed through its hard link`);
    }
    for (const block of damaged) this.#dropSuspect(block);
    const good = [...this.suspect.runs(true, run)];
    if (good.length > 0) await this.#reveal(good, epoch);
  }

  #dropSuspect(block: number): void {
    const partial = this.#part();
    partial.suspect?.clear(block);
    this.#account(partial, -lengthOf(this.geometry.blockRange(block)));
  }

  #part(): Partial {
    const count = this.geometry.blockCount;
    this.#partial ??= {
      blocks: new Bitmap(count),
      provisional: undefined,
      suspect: undefined,
      bytes: 0,
      verifying: undefined,
      flights: new Set(),
    };
    return this.#partial;
  }

  /** Bytes of those blocks of a run that are on disk in no way yet. */
  #newBytes(partial: Partial, run: BlockRun): number {
    const others = [partial.provisional, partial.suspect].filter((bitmap) => bitmap !== undefined);
    let unknown = [...partial.blocks.runs(false, run)];
    for (const bitmap of others) unknown = unknown.flatMap((part) => [...bitmap.runs(false, part)]);
    return unknown.reduce((sum, part) => sum + lengthOf(this.geometry.runRange(part)), 0);
  }

  #account(partial: Partial, bytes: number): void {
    partial.bytes += bytes;
    this.#host.grew(bytes);
  }

  #within(runs: readonly BlockRun[]): BlockRun[] {
    return runs.filter(({ first, count }) => count > 0 && first + count <= this.geometry.blockCount);
  }

  #missing(run: BlockRun, trust: Trust): BlockRun[] {
    const missing = [...this.blocks.runs(false, run)];
    if (trust === 'checked' || this.#partial?.provisional === undefined) return missing;
    const provisional = this.#partial.provisional;
    return missing.flatMap((part) => [...provisional.runs(false, part)]);
  }

  /** Waits until nobody writes to any of the blocks, and takes them. */
  async #takeOff(run: BlockRun): Promise<Flight> {
    const flight = { run, done: new Deferred() };
    for (;;) {
      const flights = this.#partial?.flights;
      let inTheWay: Flight | undefined;
      for (const other of flights ?? []) {
        const apart = other.run.first >= run.first + run.count || run.first >= other.run.first + other.run.count;
        if (!apart) inTheWay = other;
      }
      if (inTheWay === undefined) break;
      await inTheWay.done.promise;
    }
    if (!this.complete) this.#part().flights.add(flight);
    return flight;
  }

  #land(flight: Flight): void {
    this.#partial?.flights.delete(flight);
    flight.done.resolve();
  }

  async #writeData(files: OpenFiles, data: Buffer, position: number): Promise<void> {
    let retried = false;
    for (let done = 0; done < data.length; ) {
      try {
        done += (await writeFile(files.data, data, done, data.length - done, position + done)).bytesWritten;
      } catch (thrown) {
        const error = PantalaError.from(thrown);
        if (error.code !== 'disk-full' || retried || !(await this.#host.makeRoom(data.length))) throw error;
        retried = true;
      }
    }
  }

  async #readData(files: OpenFiles, range: ByteRange): Promise<Buffer> {
    const data = Buffer.allocUnsafe(lengthOf(range));
    for (let done = 0; done < data.length; ) {
      const { bytesRead } = await readFile(files.data, data, done, data.length - done, range.start + done);
      if (bytesRead === 0) throw new PantalaError('data-loss', `the file of ${this.id} ends at ${range.start + done}`);
      done += bytesRead;
    }
    return data;
  }

  /** Journals blocks and then shows them. */
  async #reveal(runs: readonly BlockRun[], epoch: number): Promise<void> {
    const { journal } = this.#host;
    journal.append(encodeRuns('blocks', this.serial, runs));
    await journal.flushed();
    this.#assertEpoch(epoch);
    // Somebody else may have brought the same blocks meanwhile (a promotion takes none for itself).
    if (this.complete) return;
    const partial = this.#part();
    for (const run of runs) {
      this.#account(partial, this.#newBytes(partial, run));
      partial.blocks.setRun(run);
      if (partial.provisional === undefined && partial.suspect === undefined) continue;
      for (let block = run.first; block < run.first + run.count; block++) {
        partial.provisional?.clear(block);
        partial.suspect?.clear(block);
      }
    }
    this.#host.used(this);
    for (const run of runs) this.#listeners?.emit({ kind: 'blocks', run });
    // A listener may have made everything void.
    if (epoch === this.#epoch && partial.blocks.count === this.geometry.blockCount) this.#finish();
  }

  #hide(runs: readonly BlockRun[]): void {
    const partial = this.#part();
    for (const run of runs) {
      this.#account(partial, this.#newBytes(partial, run));
      partial.provisional ??= new Bitmap(this.geometry.blockCount);
      partial.provisional.setRun(run);
    }
  }

  #finish(): void {
    if (this.#linked !== undefined && !this.#settleLink()) return;
    const verifying = this.#partial?.verifying;
    this.#partial = undefined;
    this.#completedAt = this.#host.now();
    this.#host.journal.append(encodeComplete(this.serial, this.#completedAt));
    verifying?.done.resolve();
    this.#listeners?.emit({ kind: 'complete' });
  }

  /** Whether a linked file is what it was when its verification began; if not, that begins anew. */
  #settleLink(): boolean {
    using files = this.#open();
    const facts = factsNow(files);
    const known = this.#partial?.verifying?.facts;
    if (known !== undefined && sameContent(known, facts) && known.changedNs === facts.changedNs) {
      this.#setLinked(facts);
      return true;
    }
    if (this.#partial !== undefined) this.#partial.verifying = undefined;
    this.suspectAll();
    return false;
  }

  #forget(): void {
    this.#epoch++;
    this.#partial?.verifying?.done.resolve();
    this.#host.grew(-this.bytes);
    this.#partial = undefined;
    this.#completedAt = undefined;
    this.#linked = undefined;
    this.#crcs = undefined;
  }

  #open(): OpenFiles {
    // The bytes of a task without any need no file; it is made when somebody wants a descriptor.
    const mode = this.bytes === 0 ? 'create' : this.complete ? 'read' : 'extend';
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
    const facts = factsNow(files);
    if (!sameContent(facts, known)) {
      throw new PantalaError('data-loss', `the file of ${this.id} was changed through its hard link`);
    }
    if (facts.changedNs === known.changedNs || this.suspect.count > 0) return;
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

function factsNow(files: OpenFiles): InodeFacts {
  return factsOf(fstatSync(files.data, { bigint: true }));
}

/** Whether nothing says that the content is another. */
function sameContent(a: InodeFacts, b: InodeFacts): boolean {
  return a.inode === b.inode && a.size === b.size && a.modifiedNs === b.modifiedNs;
}
