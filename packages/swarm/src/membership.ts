import {
  type BlockRun,
  type ByteRange,
  Deferred,
  type Logger,
  lengthOf,
  monotonicNow,
  type PantalaError,
  sleep,
} from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { DownloadRequest } from './contract.ts';
import { isMostOf } from './demand.ts';
import type { Environment } from './environment.ts';
import { Announcement } from './schedulers/announcement.ts';
import { DigestReport } from './schedulers/digests.ts';
import type { DigestListener, SchedulerLink } from './schedulers/link.ts';
import { type Candidate, SchedulerSession } from './schedulers/session.ts';

/** Milliseconds that a lost scheduler has to come back before the origin takes its place. */
const SCHEDULER_GRACE = 3000;
/** Milliseconds for which a scheduler that refused the download is left alone. */
const REFUSAL_TIME = 10_000;
/** Milliseconds for which digests are gathered before they are reported together, at first and at most. */
const FIRST_REPORT_DELAY = 10;
const LONGEST_REPORT_DELAY = 100;

/** Milliseconds after which the only host there is registers a download, unless it has ended before. */
const ALONE_DELAY = 20;

/** Whether the origin may be asked: not yet known, granted by the scheduler, or free as nobody can be asked. */
export type BackToSource = 'waiting' | 'granted' | 'free';

export interface MembershipDependencies extends DigestListener {
  readonly env: Environment;
  readonly task: StoredTask;
  readonly peerId: string;
  readonly logger: Logger;
  /** A stream to the task's scheduler, opened ahead. */
  readonly announcement: Announcement | undefined;
  /** The request with the newest credentials. */
  request(): DownloadRequest;
  /** What is wanted in bulk, and what the first reader wants. */
  wanted(): { readonly bulk: boolean; readonly range: ByteRange };
  parentsOffered(candidates: readonly Candidate[]): void;
  /** Whether digests come from now on. */
  digestsExpected(expected: boolean): void;
  changed(): void;
}

/**
 * One download's place in the swarm: registered with its scheduler, again when that was lost, or with static seeds or
 * nobody in its stead.
 */
export class Membership implements AsyncDisposable {
  readonly #deps: MembershipDependencies;
  readonly #digests: DigestReport;
  #announcement: Announcement | undefined;
  #session: SchedulerSession | undefined;
  #joining: Promise<void> | undefined;
  #registered: 'nothing' | 'range' | 'whole' = 'nothing';
  #backToSource: BackToSource = 'waiting';
  #joinedAt: number | undefined;
  #lostAt: number | undefined;
  #static = false;
  #answered = false;
  #finished = false;
  /** Resolves at the end of the download. */
  readonly #over = new Deferred();
  #registering = false;
  /** Milliseconds (monotonic) until which a scheduler that refused is left alone. */
  #refusedUntil = 0;
  #reportTimer: NodeJS.Timeout | undefined;
  #reportDelay = FIRST_REPORT_DELAY;
  #closed = false;
  /** The only host there is: nobody asks for what is told, so it waits until the reader has its bytes. */
  #alone = false;

  constructor(deps: MembershipDependencies) {
    this.#deps = deps;
    this.#announcement = deps.announcement;
    this.#digests = new DigestReport(deps.task);
  }

  get backToSource(): BackToSource {
    return this.#backToSource;
  }

  /** Static seeds stand in for the scheduler. */
  get static(): boolean {
    return this.#static;
  }

  /** A scheduler has answered the registration. */
  get answered(): boolean {
    return this.#answered;
  }

  /** A scheduler that has not answered in the time that a reader may lose is done without until it answers. */
  doubtSilent(): void {
    if (!this.#answered) this.#session?.link.doubt();
  }

  /** Milliseconds since the scheduler was first turned to; 0 before. */
  waited(now: number): number {
    return this.#joinedAt === undefined ? 0 : now - this.#joinedAt;
  }

  /** Registers, or registers for more than before. */
  join(): void {
    if (this.#joining === undefined) {
      const alone = this.#deps.env.schedulers.linkOf(this.#deps.task.description.id)?.alone === true;
      if (alone) this.allow('granted');
      this.#joining = this.#joinOnce(alone);
    } else if (this.#session !== undefined && this.#registered === 'range' && this.#deps.wanted().bulk) {
      this.#register(this.#session);
    }
  }

  /** Asks for the origin itself, whatever the scheduler says. */
  allow(state: 'granted' | 'free'): void {
    if (this.#backToSource !== 'free') this.#backToSource = state;
    this.#deps.changed();
  }

  /** To be called now and then: registers with a scheduler that came (back), does without one after a while. */
  tick(now: number): void {
    if (this.#session !== undefined || this.#joinedAt === undefined || this.#registering) return;
    const { env, task } = this.#deps;
    if (now >= this.#refusedUntil && env.schedulers.linkOf(task.description.id) !== undefined) {
      this.#lostAt = undefined;
      this.#joining = this.#joinOnce();
    } else if (this.#lostAt !== undefined && now - this.#lostAt > SCHEDULER_GRACE) {
      this.#lostAt = undefined;
      this.#withoutScheduler();
    }
  }

  /** A parent failed: others are wanted. */
  parentLost(candidate: Candidate, error: PantalaError): void {
    this.#session?.reschedule([candidate.peerId], error.message);
    if (this.#session === undefined && this.#static) this.allow('free');
  }

  /** These were offered, and are not to be asked at present: others are wanted, or leave to do without. */
  refuse(candidates: readonly Candidate[]): void {
    this.#session?.reschedule(
      candidates.map(({ peerId }) => peerId),
      'failed lately',
    );
  }

  badParent(parentId: string): void {
    this.#session?.badParent(parentId, 'blocks that do not match their digests');
  }

  pieceFinished(piece: number, parentId: string | undefined, milliseconds: number): void {
    this.#session?.pieceFinished(piece, parentId, milliseconds);
  }

  /**
   * Digests of blocks of one piece that our own fetch from the origin brought.
   *
   * @param urgent somebody waits for these very blocks
   */
  fixed(run: BlockRun, digests: Buffer, urgent: boolean): void {
    this.#digests.add(run, digests);
    if (urgent && !this.#alone) this.#report();
    else this.#reportSoon();
  }

  /** These blocks are on disk. */
  stored(run: BlockRun): void {
    if (this.#digests.stored(run)) this.#reportSoon();
  }

  #reportSoon(): void {
    if (this.#closed || this.#alone || this.#reportTimer !== undefined) return;
    this.#reportTimer = setTimeout(() => this.#report(), this.#reportDelay);
    this.#reportDelay = Math.min(LONGEST_REPORT_DELAY, this.#reportDelay + 1);
  }

  /** Everything is held and right. */
  finished(): void {
    this.#report();
    this.#finished = true;
    this.#over.resolve();
    if (this.#session !== undefined) this.#session.finished();
    else if (!this.#registering) this.#tellComplete();
  }

  /** A scheduler that knew of a part hears that it is the whole now, without a session. */
  #tellComplete(): void {
    this.#deps.env.schedulers.tellComplete(this.#deps.task, this.#deps.peerId);
  }

  /** Readers were told that it cannot be had, and nobody has come since. */
  failed(reason: string): void {
    this.#session?.failed(reason);
  }

  wholeDigestMismatch(): void {
    this.#session?.wholeDigestMismatch();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#over.resolve();
    this.#report();
    await this.#joining;
    this.#announcement?.[Symbol.dispose]();
    await this.#session?.[Symbol.asyncDispose]();
  }

  /** @param alone nobody waits for the scheduler's answer: the reader's bytes come first */
  async #joinOnce(alone = false): Promise<void> {
    const { env, task, peerId } = this.#deps;
    this.#joinedAt ??= monotonicNow();
    if (this.#deps.request().needBackToSource === true) this.allow('granted');
    this.#registering = true;
    this.#alone = alone;
    if (alone) await Promise.race([sleep(ALONE_DELAY), this.#over.promise]);
    await env.schedulers.firstWord();
    this.#registering = false;
    if (alone && this.#finished) {
      this.#tellComplete();
      return;
    }
    this.#alone = false;
    if (!this.#digests.empty) this.#reportSoon();
    if (this.#closed && !this.#finished) return;
    const link = env.schedulers.linkOf(task.description.id);
    if (link === undefined) {
      if (this.#finished) this.#tellComplete();
      else this.#withoutScheduler();
      return;
    }
    this.#deps.digestsExpected(link.pantala);
    // Nobody could be asked before; now the scheduler decides.
    if (this.#backToSource === 'free') this.#backToSource = 'waiting';
    if (this.#deps.request().needBackToSource === true) this.#backToSource = 'granted';
    this.#static = false;
    this.#session = new SchedulerSession(this.#streamTo(link), env.options.hostId, peerId, task, {
      parentsOffered: (candidates) => {
        this.#answered = true;
        this.#deps.parentsOffered(candidates);
      },
      backToSourceGranted: () => {
        this.#answered = true;
        this.allow('granted');
      },
      sessionLost: (error) => this.#lost(error),
      digestNews: (news) => this.#deps.digestNews(news),
      digestsVoid: () => this.#deps.digestsVoid(),
    });
    this.#register(this.#session);
    if (this.#finished) this.#session.finished();
    this.#deps.changed();
  }

  #streamTo(link: SchedulerLink): Announcement {
    const opened = this.#announcement;
    this.#announcement = undefined;
    if (opened?.link === link) return opened;
    opened?.[Symbol.dispose]();
    return new Announcement(link);
  }

  #register(session: SchedulerSession): void {
    const request = this.#deps.request();
    const { bulk, range } = this.#deps.wanted();
    const { contentLength } = this.#deps.task.geometry;
    const whole = bulk || request.needBackToSource === true || isMostOf(range, contentLength);
    this.#registered = whole ? 'whole' : 'range';
    session.register({ request, range: whole ? undefined : { start: range.start, length: lengthOf(range) } });
  }

  #lost(error: PantalaError): void {
    this.#session = undefined;
    if (this.#finished) this.#tellComplete();
    if (this.#closed || this.#finished) return;
    this.#deps.logger.debug('the scheduler is lost', { reason: error.message });
    this.#lostAt = monotonicNow();
    if (error.code === 'failed-precondition' || error.code === 'resource-exhausted') {
      this.#lostAt = undefined;
      this.#refusedUntil = monotonicNow() + REFUSAL_TIME;
      this.allow('free');
    }
    this.#deps.changed();
  }

  /** No scheduler can be asked: static seeds if there are any, else the origin. */
  #withoutScheduler(): void {
    const { env } = this.#deps;
    this.#deps.digestsExpected(false);
    const seeds = this.#deps.request().needBackToSource === true ? [] : env.options.staticSeeds;
    const usable = seeds.filter((address) => env.hosts.isUsable(address));
    this.#static = usable.length > 0;
    if (!this.#static) {
      this.allow('free');
      return;
    }
    this.#deps.parentsOffered(
      usable.map((address) => {
        const id = `static:${address.host}:${address.port}`;
        return { peerId: id, hostId: id, seed: true, address };
      }),
    );
  }

  #report(): void {
    // What is told of the complete task has its digests.
    if (this.#alone) return;
    clearTimeout(this.#reportTimer);
    this.#reportTimer = undefined;
    if (this.#digests.empty) return;
    const { env, task, peerId } = this.#deps;
    const link = this.#session?.link ?? env.schedulers.linkOf(task.description.id);
    for (const value of this.#digests.take(peerId)) link?.send({ case: 'reportDigests', value });
  }
}
