import { CREATED_FIXED_LENGTH, type JournalRecord } from './journal-format.ts';
import type { TaskRecord } from './journaled-task.ts';
import type { FileTask } from './task.ts';

/** Turns a journal's records, in their order, back into the tasks that they tell of. */
export class Replay {
  /** One more than the greatest that was given to a task. */
  nextSerial = 1;
  /** Bytes of the records that a compaction would keep, about. */
  liveLength = 0;
  readonly #bySerial = new Map<number, FileTask>();
  readonly #tasks: Map<string, FileTask>;
  readonly #create: (record: TaskRecord) => FileTask;

  /** @param tasks where those go that the journal knows at its end */
  constructor(tasks: Map<string, FileTask>, create: (record: TaskRecord) => FileTask) {
    this.#tasks = tasks;
    this.#create = create;
  }

  /** @param offset where the record's frame begins */
  add(record: JournalRecord, offset: number): void {
    if (record.kind === 'used') {
      for (const { serial, usedAt } of record.uses) {
        const used = this.#bySerial.get(serial);
        if (used !== undefined) used.usedAt = Math.max(used.usedAt, usedAt);
      }
      return;
    }
    const task = this.#bySerial.get(record.serial);
    if (record.kind === 'created') {
      // A compaction's snapshot and the records since its beginning may both have it.
      if (task !== undefined) return;
      const { description, ...rest } = record;
      const created = this.#create({ ...rest, recordAt: offset, descriptionLength: description.length });
      this.#bySerial.set(record.serial, created);
      this.#tasks.set(record.id, created);
      this.nextSerial = Math.max(this.nextSerial, record.serial + 1);
      this.liveLength += CREATED_FIXED_LENGTH + description.length;
      return;
    }
    if (task !== undefined) this.#change(task, record);
  }

  #change(task: FileTask, record: Exclude<JournalRecord, { kind: 'created' | 'used' }>): void {
    switch (record.kind) {
      case 'blocks':
        task.recoverBlocks(record.runs);
        return;
      case 'complete':
        task.recoverComplete(record.completedAt);
        return;
      case 'void':
        task.recoverVoid();
        return;
      case 'linked':
        task.recoverLinked(record.facts);
        return;
      case 'suspect':
        task.recoverSuspect(record.runs);
        return;
      case 'removed':
        task.recoverVoid();
        this.#bySerial.delete(record.serial);
        this.liveLength -= CREATED_FIXED_LENGTH + task.descriptionLength;
        if (this.#tasks.get(task.id) === task) this.#tasks.delete(task.id);
    }
  }
}
