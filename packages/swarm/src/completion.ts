import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Logger, monotonicNow, PantalaError } from '@pantala/base';
import type { StoredTask } from '@pantala/store';
import type { Demands } from './demand.ts';
import type { Environment } from './environment.ts';
import type { Intake } from './intake.ts';
import type { Membership } from './membership.ts';
import { taskLabels } from './metrics.ts';
import type { ParentSet } from './parent-set.ts';
import type { Selection } from './selection/selection.ts';
import type { Traffic } from './traffic.ts';
import { WholeCheck } from './whole-check.ts';

/** Times that a content whose whole digest was wrong is fetched anew, from the origin alone. */
const MAX_RESTARTS = 1;

export interface CompletionDependencies {
  readonly env: Environment;
  readonly task: StoredTask;
  readonly logger: Logger;
  readonly selection: Selection;
  readonly demands: Demands;
  readonly intake: Intake;
  readonly parents: ParentSet;
  readonly membership: Membership;
  readonly traffic: Traffic;
  /** Milliseconds (monotonic) of the download's beginning. */
  readonly startedAt: number;
  /** Whether the request ever allows to ask the origin. */
  mayEverAsk(): boolean;
  /** The check is over, either way: what waited for it may go on. */
  settled(): void;
  /** Everything is held and right. */
  completed(): void;
  /** Pieces that were told of are to be told of again. */
  restarted(): void;
  /** Readers cannot be served. */
  failed(error: PantalaError): void;
}

/** The end of a download: all is on disk, and is it what its name promises? */
export class Completion implements Disposable {
  readonly #deps: CompletionDependencies;
  readonly #check: WholeCheck;
  #checking = false;
  #verified = false;
  #restarts = 0;

  constructor(deps: CompletionDependencies) {
    this.#deps = deps;
    this.#check = new WholeCheck(deps.task, deps.env.wholeDigests);
  }

  /** The whole is being checked at this moment. */
  get checking(): boolean {
    return this.#checking;
  }

  /** Everything is held, and whether it is what its name promises is not known yet. */
  get pending(): boolean {
    const { description, blocks, provisional, geometry } = this.#deps.task;
    if (description.digest === undefined || this.#verified) return false;
    return blocks.count + provisional.count === geometry.blockCount;
  }

  /** Blocks have come: reads on in what is held from the beginning, and looks whether it was the last one. */
  progress(): void {
    const { task, selection } = this.#deps;
    this.#check.extend(selection.heldPrefix());
    if (task.blocks.count + task.provisional.count === task.geometry.blockCount) void this.#finish();
  }

  [Symbol.dispose](): void {
    this.#check[Symbol.dispose]();
  }

  /** Everything is on disk: check the whole where its digest is known, and tell everybody. */
  async #finish(): Promise<void> {
    const { task, demands, membership, env } = this.#deps;
    if (this.#checking) return;
    this.#checking = true;
    try {
      if (!(await this.#check.holds())) {
        await this.#mismatch();
        return;
      }
      await task.promote();
      this.#verified = true;
      demands.wake((offset) => task.availableFrom(offset));
      // The readers go first: what follows takes as long as sending them a small file.
      await nextTurn();
      membership.finished();
      env.metrics.taskDuration.observe(monotonicNow() - this.#deps.startedAt, taskLabels(task.geometry.contentLength));
      this.#deps.completed();
    } catch (error) {
      this.#deps.failed(PantalaError.from(error));
    } finally {
      this.#checking = false;
      this.#check[Symbol.dispose]();
      this.#deps.settled();
    }
  }

  /** The whole is not what its name promises: nothing of it can be trusted, whoever gave it. */
  async #mismatch(): Promise<void> {
    const { task, logger, membership, intake, selection, traffic, demands, env } = this.#deps;
    const { id, url } = task.description;
    logger.warn('the content does not have its digest', { url });
    membership.wholeDigestMismatch();
    intake.forget();
    selection.nothingCheckable();
    this.#deps.restarted();
    const wrong = new PantalaError('data-loss', `the content of ${url} does not have the digest sha256:${id}`);
    const fromPeers = traffic.peerBytes > 0;
    const mayRestart = this.#restarts < MAX_RESTARTS && this.#deps.mayEverAsk();
    // Nobody has seen what is provisional: without it, readers may go on with what came from the origin.
    if (task.provisional.count > 0 && mayRestart) {
      for (const run of task.provisional.runs(true)) selection.drop(run);
      task.discardProvisional();
      this.#restart();
      return;
    }
    demands.spoil(wrong);
    await env.store.void(id);
    selection.reset();
    if (fromPeers && mayRestart) this.#restart();
    else this.#deps.failed(wrong);
  }

  /** Once more, from the origin alone. */
  #restart(): void {
    this.#restarts++;
    this.#deps.parents.offer([]);
    this.#deps.membership.allow('free');
  }
}
