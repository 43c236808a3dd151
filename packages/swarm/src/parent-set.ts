import { type BlockRun, type Logger, monotonicNow, PantalaError } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { DownloadRequest } from './contract.ts';
import type { Intake } from './intake.ts';
import { Pace } from './parents/pace.ts';
import type { Parent, ParentNews } from './parents/parent.ts';
import type { ParentHosts } from './parents/parent-hosts.ts';
import type { Candidate } from './schedulers/session.ts';
import { Deal } from './selection/holdings.ts';
import { type BlockRequest, REQUEST_BLOCKS, type Selection } from './selection/selection.ts';
import { withinPieces } from './selection/units.ts';

export interface ParentSetDependencies {
  readonly task: StoredTask;
  readonly selection: Selection;
  readonly intake: Intake;
  readonly hosts: ParentHosts;
  readonly logger: Logger;
  /** The request with the newest credentials. */
  request(): DownloadRequest;
  /** Whether everything is wanted. */
  bulk(): boolean;
  /** There may be something new to ask for. */
  changed(): void;
  /** These are left out as they failed lately: others are wanted. */
  refused(candidates: readonly Candidate[]): void;
  /** A parent is out: it failed, or (with `bad`) gave wrong bytes. */
  lost(candidate: Candidate, error: PantalaError, bad: boolean): void;
  /** The store cannot take more. */
  storeFailed(error: PantalaError): void;
}

interface Member {
  readonly candidate: Candidate;
  readonly pace: Pace;
  readonly stop: AbortController;
  parent: Parent | undefined;
  /** Milliseconds (monotonic) of the last bytes or news. */
  lastSign: number;
  /** Whether there were any. */
  heard: boolean;
  /** Milliseconds (monotonic) at which it was offered. */
  readonly offeredAt: number;
  /** Whether it has said what it holds. */
  introduced: boolean;
  /** Since when it is asked without having given anything that could be stored; undefined when it has. */
  uselessSince: number | undefined;
  requests: number;
}

/**
 * Milliseconds for which the signs of a parent count that gives nothing but what cannot be checked: whoever lies may
 * talk for ever. Digests that are late come within a second.
 */
const USELESS_TIMEOUT = 5000;

/** What is asked of a parent, and how: see `ParentFetch`. */
interface Ask {
  readonly run: BlockRun;
  readonly fetchMissing?: boolean;
  readonly gather?: boolean;
}

/** When a block was last heard of, and how soon its parent usually answers. Milliseconds. */
export interface Sign {
  readonly at: number;
  readonly usualAnswer: number;
  /** Whether any of them has ever said anything. */
  readonly heard: boolean;
}

/** The parents of one task: opened as the scheduler offers them, asked for blocks, left out when they fail. */
export class ParentSet implements AsyncDisposable {
  readonly #deps: ParentSetDependencies;
  readonly #members = new Map<string, Member>();
  /** Blocks asked for, with whom. */
  readonly #asked = new Map<Member, Set<BlockRun>>();
  readonly #working = new Set<Promise<void>>();
  #missing = 0;
  /** What waits for its digests, as far as nobody else is asked for it. */
  #kept: readonly BlockRun[] = [];
  /** Pieces whose list is being asked for by itself. */
  readonly #lists = new Set<number>();
  /** Hosts that gave wrong bytes: never again for this task, under whatever peer id. */
  readonly #banned = new Set<string>();

  constructor(deps: ParentSetDependencies) {
    this.#deps = deps;
  }

  get size(): number {
    return this.#members.size;
  }

  /** Ids of all parents, open or being opened. */
  get ids(): string[] {
    return [...this.#members.keys()];
  }

  /** Takes the complete set of parents: opens new ones, lets go of those that are not in it. */
  offer(candidates: readonly Candidate[]): void {
    const { hosts } = this.#deps;
    const usable = candidates.filter(
      ({ peerId, hostId, address }) =>
        !this.#banned.has(hostId) && (this.#members.has(peerId) || hosts.isUsable(address)),
    );
    const refused = candidates.filter((candidate) => !usable.includes(candidate));
    if (refused.length > 0) this.#deps.refused(refused);
    const wanted = new Set(usable.map(({ peerId }) => peerId));
    for (const [id, member] of this.#members) if (!wanted.has(id)) this.#remove(id, member);
    for (const candidate of usable) if (!this.#members.has(candidate.peerId)) this.#add(candidate);
    this.#deps.changed();
  }

  /** Starts a request that the selection chose. */
  ask(request: BlockRequest): void {
    const { selection } = this.#deps;
    const member = this.#members.get(request.parent);
    if (member?.parent === undefined) {
      selection.ended(request.id);
      return;
    }
    this.#run(
      this.#fetch(member, member.parent, { run: request.run, gather: !request.urgent }, () =>
        selection.ended(request.id),
      ),
    );
  }

  /** Has a seed fetch blocks from the origin that nobody holds. False when no seed can. */
  fetchMissing(run: BlockRun): boolean {
    const { selection, task } = this.#deps;
    const seeds = [...this.#members.values()].filter(({ parent }) => parent?.fetchesMissing === true);
    const member = seeds.sort((a, b) => a.requests - b.requests)[0];
    const { parent } = member ?? {};
    if (member === undefined || parent === undefined) return false;
    for (const part of withinPieces(task.geometry, run, REQUEST_BLOCKS)) {
      selection.take(part);
      this.#missing++;
      const ended = (): void => {
        this.#missing--;
        selection.release(part);
      };
      this.#run(this.#fetch(member, parent, { run: part, fetchMissing: true }, ended));
    }
    return true;
  }

  /**
   * Asks for the list of a piece's digests, by the first block of a run that came without it. Who has the whole piece
   * can give it; news of that may be still to come from the parent that sent the run.
   */
  fetchList(sender: string, run: BlockRun): void {
    const piece = this.#deps.task.geometry.pieceOfBlock(run.first);
    const member = this.#members.get(this.#deps.selection.holderOf(piece) ?? sender);
    if (member?.parent === undefined || this.#lists.has(piece)) return;
    this.#lists.add(piece);
    const ended = (): void => {
      this.#lists.delete(piece);
    };
    this.#run(this.#fetch(member, member.parent, { run: { first: run.first, count: 1 } }, ended));
  }

  /** Whether a seed is fetching on our behalf at this moment. */
  get fetchingMissing(): boolean {
    return this.#missing > 0;
  }

  /** Whether a seed that fetches for others is here or about to be. */
  get hasSeed(): boolean {
    return [...this.#members.values()].some(({ candidate, parent }) => parent?.fetchesMissing ?? candidate.seed);
  }

  /** Whether a parent that was offered less than `patience` milliseconds ago has yet to say what it holds. */
  introducing(now: number, patience: number): boolean {
    for (const { introduced, offeredAt } of this.#members.values())
      if (!introduced && now - offeredAt < patience) return true;
    return false;
  }

  /** What was last heard of whoever was asked for a block, or of anybody when nobody was. */
  signAbout(block: number): Sign {
    let at = Number.NEGATIVE_INFINITY;
    let usualAnswer = 0;
    let heard = false;
    let asked = false;
    for (const [member, runs] of this.#asked) {
      for (const run of runs) {
        if (block < run.first || block >= run.first + run.count) continue;
        asked = true;
        at = Math.max(at, signOf(member));
        heard ||= member.heard;
        usualAnswer = Math.max(usualAnswer, member.pace.usualAnswer);
      }
    }
    if (asked) return { at, usualAnswer, heard };
    for (const member of this.#members.values()) {
      at = Math.max(at, signOf(member));
      heard ||= member.heard;
    }
    return { at, usualAnswer, heard };
  }

  /** A reader has waited for parents that never said anything: others are not to wait for them again. */
  doubtSilent(): void {
    for (const { heard, candidate } of this.#members.values()) if (!heard) this.#deps.hosts.doubt(candidate.address);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const [id, member] of this.#members) this.#remove(id, member);
    while (this.#working.size > 0) await Promise.all(this.#working);
  }

  #add(candidate: Candidate): void {
    const { hosts, task, logger } = this.#deps;
    const now = monotonicNow();
    const member: Member = {
      candidate,
      pace: new Pace(),
      stop: new AbortController(),
      parent: undefined,
      lastSign: now,
      heard: false,
      offeredAt: now,
      introduced: false,
      uselessSince: undefined,
      requests: 0,
    };
    this.#members.set(candidate.peerId, member);
    const listener = {
      news: (news: ParentNews) => this.#news(member, news),
      gone: (error: PantalaError) => this.#failed(member, error),
    };
    const open = { task, bulk: this.#deps.bulk(), request: () => this.#deps.request(), listener };
    this.#run(
      hosts.open(candidate, open, member.stop.signal).then(
        async (parent) => {
          if (this.#members.get(candidate.peerId) !== member) {
            await parent[Symbol.asyncDispose]();
            return;
          }
          member.parent = parent;
          const traits = { seed: candidate.seed, wholePieces: parent.wholePieces };
          this.#deps.selection.addParent(candidate.peerId, traits);
          logger.debug('parent', { parent: candidate.hostId, seed: candidate.seed, upstream: parent.wholePieces });
          this.#deps.changed();
        },
        (error: unknown) => this.#failed(member, PantalaError.from(error)),
      ),
    );
  }

  #news(member: Member, news: ParentNews): void {
    const { selection } = this.#deps;
    const id = member.candidate.peerId;
    this.#signFrom(member, monotonicNow());
    if (member.parent !== undefined) member.introduced = true;
    // A seed that waits for the origin says so, and has nothing else to give meanwhile.
    if (member.candidate.seed) member.uselessSince = undefined;
    for (const run of news.held) selection.parentHolds(id, run);
    for (const run of news.assigned) selection.parentDeals(id, run, Deal.assigned);
    for (const run of news.deferred) selection.parentDeals(id, run, Deal.deferred);
    if (news.held.length + news.assigned.length + news.deferred.length > 0) this.#deps.changed();
  }

  async #fetch(member: Member, parent: Parent, ask: Ask, ended: () => void): Promise<void> {
    const { intake, selection, task } = this.#deps;
    const { candidate, pace } = member;
    const { run, fetchMissing = false, gather = false } = ask;
    const id = candidate.peerId;
    const askedAt = monotonicNow();
    let answered = false;
    const asked = this.#asked.get(member) ?? new Set();
    this.#asked.set(member, asked);
    asked.add(run);
    member.requests++;
    if (member.requests === 1) member.lastSign = askedAt;
    member.uselessSince ??= askedAt;
    try {
      await parent.fetch({
        run,
        fetchMissing,
        gather,
        wantDigests: intake.verification.needsList(run),
        signal: member.stop.signal,
        onDigests: (digests) => {
          const piece = task.geometry.pieceOfBlock(run.first);
          if (intake.digestList(id, piece, digests)) selection.checkable(task.geometry.pieceBlocks(piece));
        },
        onBlocks: async (part, data) => {
          const now = monotonicNow();
          this.#signFrom(member, now);
          if (!answered) {
            answered = true;
            pace.answered(now - askedAt);
          }
          if (pace.received(data.length, now)) selection.setBudget(id, pace.budget);
          const held = isStored(task, part);
          await intake.fromParent(id, part, data, !parent.wholePieces);
          if (!held && isStored(task, part)) member.uselessSince = undefined;
        },
      });
      this.#deps.hosts.worked(candidate.address);
    } catch (error) {
      this.#failed(member, PantalaError.from(error));
    } finally {
      asked.delete(run);
      if (asked.size === 0) this.#asked.delete(member);
      member.requests--;
      if (member.requests === 0) pace.idle();
      ended();
      this.#keepWaiting();
      this.#deps.changed();
    }
  }

  /** Nobody else is asked for what waits for its digests; what waits no longer is missing again. */
  #keepWaiting(): void {
    const { intake, selection } = this.#deps;
    for (const run of this.#kept) selection.release(run);
    this.#kept = [...intake.waiting()];
    for (const run of this.#kept) selection.take(run);
  }

  #signFrom(member: Member, now: number): void {
    member.lastSign = now;
    if (member.heard) return;
    member.heard = true;
    this.#deps.hosts.heard(member.candidate.address);
  }

  #failed(member: Member, error: PantalaError): void {
    const { candidate } = member;
    if (this.#members.get(candidate.peerId) !== member) return;
    if (error.code === 'disk-full') {
      this.#deps.storeFailed(error);
      return;
    }
    const bad = error.code === 'data-loss';
    if (bad) {
      this.#banned.add(candidate.hostId);
      this.#deps.intake.forgetParent(candidate.peerId);
      this.#keepWaiting();
    }
    if (bad || error.code === 'unavailable' || error.code === 'deadline-exceeded') {
      this.#deps.hosts.failed(candidate.address);
    }
    this.#remove(candidate.peerId, member);
    this.#deps.lost(candidate, error, bad);
  }

  #remove(id: string, member: Member): void {
    this.#members.delete(id);
    this.#deps.selection.removeParent(id);
    member.stop.abort(new PantalaError('cancelled', 'the parent is not needed any more'));
    if (member.parent !== undefined) this.#run(member.parent[Symbol.asyncDispose]());
  }

  #run(work: PromiseLike<void>): void {
    const settled = Promise.resolve(work)
      .catch((error: unknown) => {
        this.#deps.logger.debug('a parent failed late', { reason: String(error) });
      })
      .finally(() => this.#working.delete(settled));
    this.#working.add(settled);
  }
}

/** When a parent was last heard of, as far as what it says is of use. */
function signOf({ lastSign, uselessSince }: Member): number {
  return uselessSince === undefined ? lastSign : Math.min(lastSign, uselessSince + USELESS_TIMEOUT);
}

function isStored({ blocks, provisional }: StoredTask, run: BlockRun): boolean {
  return blocks.hasAll(run) || provisional.hasAll(run);
}
