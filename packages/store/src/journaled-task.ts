import { type BlockRun, Listeners, type Lru, PantalaError } from '@pantala/base';
import type { StoreEvent, TaskDescription } from './contract.ts';
import { factsOf, sameContent } from './file-io.ts';
import type { Journal } from './journal.ts';
import {
  CREATED_FIXED_LENGTH,
  encodeBare,
  encodeComplete,
  encodeCreated,
  encodeLinked,
  encodeRuns,
  type InodeFacts,
} from './journal-format.ts';
import type { Flight } from './partial.ts';
import { type Accounts, TaskContent } from './task-content.ts';
import type { OpenFiles, TaskFiles } from './task-files.ts';

/** What a task needs of the store that it belongs to. */
export interface TaskHost extends Accounts {
  readonly journal: Journal;
  readonly files: TaskFiles;
  /** Descriptions that were asked for lately; the others lie in the journal. */
  readonly descriptions: Lru<string, TaskDescription>;
  now(): number;
  /** @throws `unavailable` once the store is closed */
  assertOpen(): void;
  used(task: JournaledTask): void;
  /** Evicts other tasks; false when nothing could be. */
  makeRoom(bytes: number): Promise<boolean>;
  /** Blocks of the task wait to be verified. */
  suspected(task: JournaledTask): void;
  voided(task: JournaledTask, reason: PantalaError | undefined): void;
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

/** Which blocks of a task are held, as the journal knows it: what is shown here is there after a SIGKILL. */
export abstract class JournaledTask extends TaskContent {
  readonly id: string;
  readonly serial: number;
  readonly createdAt: number;
  /** Milliseconds since the epoch of the last read or write. */
  usedAt: number;
  /** Where the journal has its description. */
  recordAt: number;
  readonly descriptionLength: number;
  /** Whoever creates it does not have it yet. */
  creating = false;
  protected readonly host: TaskHost;
  /** Counts how often everything was void: what began before knows that it is too late. */
  protected epoch = 0;
  #linked: InodeFacts | undefined;
  #listeners: Listeners<StoreEvent> | undefined;

  constructor(host: TaskHost, record: TaskRecord) {
    super(host, record.contentLength, record.pieceLength);
    this.host = host;
    this.id = record.id;
    this.serial = record.serial;
    this.createdAt = record.createdAt;
    this.usedAt = record.usedAt;
    this.recordAt = record.recordAt;
    this.descriptionLength = record.descriptionLength;
  }

  /** Checks a part of the suspect blocks against their digests; false when none are left. */
  abstract verifySome(): Promise<boolean>;

  get description(): TaskDescription {
    const known = this.host.descriptions.get(this.id);
    if (known !== undefined) return known;
    const json = this.host.journal.readAt(this.recordAt + CREATED_FIXED_LENGTH, this.descriptionLength);
    const description: TaskDescription = {
      ...(JSON.parse(json.toString()) as Omit<TaskDescription, 'id' | 'contentLength' | 'pieceLength'>),
      id: this.id,
      contentLength: this.contentLength,
      pieceLength: this.pieceLength,
    };
    this.host.descriptions.set(this.id, description);
    return description;
  }

  get linked(): InodeFacts | undefined {
    return this.#linked;
  }

  /** What a compacted journal says of it. */
  snapshot(): Buffer {
    const { serial, id, createdAt, usedAt, contentLength, pieceLength, completedAt, host } = this;
    const description = host.journal.readAt(this.recordAt + CREATED_FIXED_LENGTH, this.descriptionLength);
    const records = [encodeCreated({ serial, id, createdAt, usedAt, contentLength, pieceLength, description })];
    if (completedAt !== undefined && this.proven) records.push(encodeComplete(serial, completedAt));
    else if (this.bytes > 0) {
      records.push(encodeRuns('blocks', serial, this.blocks.runs(true)));
      records.push(encodeRuns('suspect', serial, this.suspect.runs(true)));
    }
    if (this.#linked !== undefined) records.push(encodeLinked(serial, this.#linked));
    return Buffer.concat(records);
  }

  /** Somebody reads, writes or watches it while it is not complete. */
  get busy(): boolean {
    if (this.creating || this.host.files.isPinned(this.id) || this.partial?.busy) return true;
    return !this.complete && (this.#listeners?.size ?? 0) > 0;
  }

  subscribe(listener: (event: StoreEvent) => void): Disposable {
    this.#listeners ??= new Listeners();
    return this.#listeners.subscribe(listener);
  }

  /** Forgets everything held. The files are out of the way and the journal knows it before this returns. */
  async void(reason?: PantalaError): Promise<void> {
    this.#forget();
    this.host.journal.append(encodeBare('void', this.serial), true);
    this.host.journal.settle();
    const freed = this.host.files.discard(this.id);
    this.host.voided(this, reason);
    this.#listeners?.emit({ kind: 'void' });
    this.completeIfEmpty();
    await freed;
  }

  /** The store has let go of it. */
  async removed(): Promise<void> {
    this.#forget();
    const freed = this.host.files.discard(this.id);
    this.#listeners?.emit({ kind: 'void' });
    await freed;
  }

  /** The store closes: nobody may wait for a verification that does not come. */
  closed(): void {
    if (this.#linked !== undefined) this.partial?.verified.resolve();
    this.epoch++;
  }

  /** A task without content is complete from the start. */
  completeIfEmpty(): void {
    if (this.contentLength === 0 && !this.complete) this.#finish();
  }

  /** Looks whether a linked file was changed through its other name. */
  refresh(): void {
    if (this.#linked === undefined) return;
    try {
      this.pin()[Symbol.dispose]();
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

  /** After the journal was read: what a task is whose last block is there, but not the record that it is complete. */
  recovered(): void {
    if (this.complete || !this.whole) return;
    if (this.description.digest === undefined) this.recoverComplete(this.usedAt);
    else this.withholdLast();
  }

  /** Everything that is held must be verified before anybody sees it. */
  suspectAll(): void {
    const held = [...this.blocks.runs(true)];
    if (held.length === 0) return;
    this.epoch++;
    this.doubt(held);
    this.host.journal.append(encodeRuns('suspect', this.serial, held), true);
    this.#listeners?.emit({ kind: 'void' });
    this.host.suspected(this);
  }

  /** Nobody compares the whole with its digest any more: until the store has done it, the last block is hidden. */
  recheck(): void {
    if (!this.complete || this.proven) return;
    this.withholdLast();
    this.host.suspected(this);
  }

  /** Takes blocks once nobody else has any of them under way; undefined when the task is complete by then. */
  protected async takeOff(run: BlockRun): Promise<Flight | undefined> {
    while (!this.complete) {
      const flight = this.part().takeOff(run);
      if (!(flight instanceof Promise)) return flight;
      await flight;
    }
    return undefined;
  }

  /** Journals blocks and then shows them. */
  protected async reveal(runs: readonly BlockRun[], epoch: number): Promise<void> {
    const { journal } = this.host;
    journal.append(encodeRuns('blocks', this.serial, runs));
    await journal.flushed();
    this.assertEpoch(epoch);
    // Somebody else may have brought the same blocks meanwhile (a promotion takes none for itself).
    if (this.complete) return;
    const partial = this.hold(runs);
    this.host.used(this);
    for (const run of runs) this.#listeners?.emit({ kind: 'blocks', run });
    // A listener may have made everything void.
    if (epoch === this.epoch && partial.blocks.count === this.geometry.blockCount) this.#finish();
  }

  #finish(): void {
    if (this.#linked !== undefined && !this.#settleLink()) return;
    const { partial } = this;
    const completedAt = this.host.now();
    this.finish(completedAt);
    if (this.proven || this.description.digest === undefined) this.prove();
    if (this.#linked !== undefined) partial?.verified.resolve();
    this.#listeners?.emit({ kind: 'complete' });
  }

  /** The whole is right: from now on a restart finds the task complete. */
  protected prove(): void {
    this.proven = true;
    if (this.completedAt !== undefined) this.host.journal.append(encodeComplete(this.serial, this.completedAt));
  }

  /** Whether a linked file is what it was when its verification began; if not, that begins anew. */
  #settleLink(): boolean {
    using files = this.open();
    const facts = factsOf(files.data);
    const known = this.partial?.linkFacts;
    if (known !== undefined && sameContent(known, facts) && known.changedNs === facts.changedNs) {
      this.setLinked(facts);
      return true;
    }
    if (this.partial !== undefined) this.partial.linkFacts = undefined;
    this.suspectAll();
    return false;
  }

  #forget(): void {
    this.epoch++;
    if (this.#linked !== undefined) this.partial?.verified.resolve();
    this.recoverVoid();
  }

  protected open(): OpenFiles {
    this.host.assertOpen();
    // The bytes of a task without any need no file; it is made when somebody wants a descriptor.
    const readOnly = this.complete || this.#linked !== undefined;
    const mode = this.bytes === 0 ? 'create' : readOnly ? 'read' : 'extend';
    if (mode === 'create' && !this.host.journal.settle()) {
      throw new PantalaError('disk-full', 'the journal has no room for what must be known before a new file is made');
    }
    return this.host.files.pin(this.id, this.contentLength, mode);
  }

  /** The open files, when they are what the store knows. @throws `data-loss`: the task is void then */
  protected pin(): OpenFiles {
    try {
      const files = this.open();
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

  protected setLinked(facts: InodeFacts): void {
    this.#linked = facts;
    this.host.journal.append(encodeLinked(this.serial, facts));
  }

  protected assertEpoch(epoch: number): void {
    if (epoch !== this.epoch) throw new PantalaError('cancelled', `what task ${this.id} held is void`);
  }
}
