import { closeSync, openSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { constants } from 'node:os';
import { type Logger, PantalaError } from '@pantala/base';
import { ACCESS_EVENT_LENGTH, accessEvents, answerAccess, markFile, unmarkFile } from '@pantala/linux';
import type { LazyBlob } from '../contract.ts';
import type { Demand } from '../demand.ts';
import type { AttachedBlob, LazyDriver, ServedBlob } from '../driver.ts';
import { Answering } from '../pending/answering.ts';
import type { PendingTable } from '../pending/pending-table.ts';
import {
  type AccessRecord,
  decodeAccess,
  encodeAccess,
  identityKey,
  identityOf,
  type TakenAccess,
} from './access-record.ts';

export interface FanotifyOptions {
  /** From `createAccessGroup`, or taken over; belongs to the driver. */
  readonly group: number;
  readonly table: PendingTable;
  readonly demand: Demand;
  readonly logger: Logger;
  /** Called when events can no longer be taken, or were lost: this worker must give way to another. */
  readonly onFailure: (error: PantalaError) => void;
}

interface Attachment {
  readonly path: string;
  /** A mount each; whichever can get at the bytes fills the file for all. */
  readonly users: Set<ServedBlob>;
  marked: boolean;
}

/** Fills cache files before the kernel reads them: events before reads (Linux 6.15), no device and no copy between. */
export class FanotifyDriver implements LazyDriver {
  readonly name = 'fanotify';
  readonly #options: FanotifyOptions;
  readonly #attached = new Map<string, Attachment>();
  readonly #answering: Answering<TakenAccess>;
  /** By an event's number: the answers of those that have it and came before. */
  readonly #answers = new Map<number, Promise<void>>();
  /** Answers to what the last worker left. */
  #leftAnswered: Promise<unknown> = Promise.resolve();

  constructor(options: FanotifyOptions) {
    this.#options = options;
    this.#answering = new Answering({
      script: new URL('./access-thread.ts', import.meta.url),
      // Another one would only contend for the group: answers do not wait for anything.
      threads: 1,
      source: options.group,
      table: options.table,
      serve: (event) => this.#inTurn([event], true),
      onFailure: options.onFailure,
    });
  }

  /** @throws LinuxError where the file system takes no mark; `not-found` */
  async attach(served: ServedBlob): Promise<AttachedBlob> {
    const key = identityKey(identityOf(await stat(served.path, { bigint: true })));
    let attachment = this.#attached.get(key);
    if (attachment === undefined) {
      attachment = { path: served.path, users: new Set(), marked: true };
      this.#attached.set(key, attachment);
      markFile(this.#options.group, served.path);
    }
    const { users } = attachment;
    users.add(served);
    return {
      device: served.path,
      [Symbol.asyncDispose]: async () => {
        users.delete(served);
        const attached = this.#attached.get(key);
        if (users.size > 0 || attached?.users !== users) return;
        this.#attached.delete(key);
        this.#answering.forget(key);
        this.#unmark(attached);
      },
    };
  }

  opened(blob: LazyBlob): void {
    // Before that an answer of the thread could be one to an older event of the same number.
    void this.#leftAnswered.then(() => {
      for (const [key, { path }] of this.#attached) if (path === blob.path) this.#answering.share(key, blob);
    });
  }

  /** Takes the mark off a blob of which everything is there: from then on its reads stay in the kernel. */
  complete(path: string): void {
    for (const attachment of this.#attached.values()) if (attachment.path === path) this.#unmark(attachment);
  }

  #unmark(attachment: Attachment): void {
    if (!attachment.marked) return;
    attachment.marked = false;
    try {
      unmarkFile(this.#options.group, attachment.path);
    } catch (error) {
      // The file is gone, and its mark with it.
      this.#options.logger.debug('a mark could not be taken away', { path: attachment.path, error });
    }
  }

  start(): void {
    if (this.#answering.begun) return;
    const orphans = this.#leftOver();
    const fillers = occupyUpTo(Math.max(-1, ...orphans.map(({ fd }) => fd)));
    const answered = [...Map.groupBy(orphans, ({ fd }) => fd).values()].map((same) =>
      this.#answering.track(this.#inTurn(same, false)),
    );
    this.#leftAnswered = Promise.allSettled(answered).then(() => {
      for (const fd of fillers) closeSync(fd);
    });
    this.#answering.begin();
  }

  /** What is in the table and what the worker before had not come to note there. */
  #leftOver(): TakenAccess[] {
    const { table, logger } = this.#options;
    const taken: TakenAccess[] = [];
    for (const { slot, record } of table.leftOver()) {
      const access = decodeAccess(record);
      if (access === undefined) table.free(slot);
      else taken.push({ ...access, slot });
    }
    const noted = new Set(taken.map(nameOf));
    for (const intake of table.intakes) {
      for (const event of accessEvents(intake)) {
        if (event.fd < 0 || noted.has(nameOf(event))) continue;
        const slot = table.add(encodeAccess(intake.subarray(event.at, event.at + ACCESS_EVENT_LENGTH), undefined));
        const { fd, pid, offset, count } = event;
        taken.push({ slot, fd, pid, offset, count, file: undefined });
      }
      intake.fill(0);
    }
    if (taken.length > 0) logger.info('reads that the last worker left unanswered', { count: taken.length });
    return taken;
  }

  /**
   * Answers events that have the same number. The kernel knows an event by it alone, and takes an answer for the oldest
   * one with that number: an event of this worker has that of one which the last worker left when this worker's own file
   * of that number is closed meanwhile, as the connection to a guardian is that dies.
   *
   * @param own whether this worker took them; of those that were left nobody knows which is the oldest
   */
  async #inTurn(events: readonly TakenAccess[], own: boolean): Promise<void> {
    const number = events[0]?.fd ?? -1;
    const before = this.#answers.get(number);
    const turn = this.#serve(events, own, before);
    this.#answers.set(number, turn);
    try {
      await turn;
    } finally {
      if (this.#answers.get(number) === turn) this.#answers.delete(number);
    }
  }

  async #serve(events: readonly TakenAccess[], own: boolean, before: Promise<void> | undefined): Promise<void> {
    const { group, table, logger } = this.#options;
    const errnos = await Promise.all(events.map((event) => this.#satisfy(event)));
    const errno = errnos.find((each) => each !== 0) ?? 0;
    await before;
    if (this.#answering.isOver) return;
    for (const event of events) {
      try {
        if (!answerAccess(group, event.fd, errno)) logger.debug('nobody waits for this answer', { pid: event.pid });
      } catch (error) {
        logger.error('an answer could not be given', { error });
      }
      // In this order: a number that is free again may name another event.
      table.free(event.slot);
      if (own) closeSync(event.fd);
    }
  }

  async #satisfy(event: AccessRecord): Promise<number> {
    const { demand } = this.#options;
    if (event.file !== undefined) {
      const attachment = this.#attached.get(identityKey(event.file));
      // Of a mount that was detached while it was used, and that nobody remembers.
      if (attachment === undefined) return constants.errno.EIO;
      return demand.satisfy(attachment.users, event.offset, event.count);
    }
    // Nobody waits for it, as for the last worker's own reads. It is answered even so: it keeps its number, and an answer
    // to the next event that has the same one would go to it.
    if (!isAlive(event.pid)) return 0;
    // The last worker died between taking the event and asking whose it is: all that it may be about must be there.
    const all = [...this.#attached.values()].map(({ users }) => demand.satisfy(users, event.offset, event.count));
    return (await Promise.all(all)).find((errno) => errno !== 0) ?? 0;
  }

  pause(): Promise<void> {
    return this.#answering.pause();
  }

  /** Closes this process's descriptor of the group. Whoever holds the last one lets every reader through by it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.pause();
    closeSync(this.#options.group);
  }
}

/**
 * Descriptors that take every free number up to `highest`: no event of this worker may have the number of one that the
 * last worker left, for an answer names its event by this number alone.
 */
function occupyUpTo(highest: number): number[] {
  const fillers: number[] = [];
  for (let fd = -1; fd < highest; ) {
    fd = openSync('/dev/null', 'r');
    fillers.push(fd);
  }
  return fillers;
}

/** What an event that is noted in the table has in common with the same one where the kernel has written it. */
function nameOf({ fd, pid, offset, count }: Pick<AccessRecord, 'fd' | 'pid' | 'offset' | 'count'>): string {
  return `${fd} ${pid} ${offset} ${count}`;
}

function isAlive(pid: number): boolean {
  // 0: of another PID namespace, of which nothing is known.
  if (pid === 0) return true;
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return PantalaError.from(error).details.errno !== 'ESRCH';
  }
}
