import { closeSync, existsSync, fstatSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { type Logger, monotonicNow, PantalaError, sleep } from '@pantala/base';
import { tryLock } from '@pantala/linux';
import { MetricsRegistry } from '@pantala/service';
import { ErrorEvents, FillTrace } from '../accounting/index.ts';
import { nydusdRoutes, traceOf } from '../api/index.ts';
import { DATA_SUFFIX } from '../cache/blob-files.ts';
import { controlGroups, guardianGroups } from '../guardian/control-groups.ts';
import { storeDescriptors, storedDescriptors } from '../guardian/descriptor-store.ts';
import { GuardianLink } from '../guardian/guardian-link.ts';
import { type Guardian, type Held, inherited } from '../guardian/held.ts';
import { HostGuardianLink } from '../guardian/host-guardian-link.ts';
import type { GuardianSettings, WorkerCommand } from '../guardian/messages.ts';
import { NEVER_TAKEN, offerBefore } from '../guardian/oom-score.ts';
import { LazyMounts } from '../mounting/lazy-mounts.ts';
import type { MountState } from '../mounting/mount.ts';
import type { MountOrder } from '../mounting/mount-order.ts';
import { MountRecords } from '../mounting/mount-record.ts';
import type { PrefetchSettings } from '../mounting/mount-request.ts';
import { type Capabilities, tryDrivers } from '../mounting/trial.ts';
import { ControlClient } from './control-client.ts';
import { type ControlRoutes, ControlServer } from './control-server.ts';
import { Drivers } from './drivers.ts';
import { NydusdService } from './nydusd-service.ts';
import { resolveOrder } from './order-resolution.ts';
import type { Places } from './places.ts';

export interface WorkerOptions {
  readonly places: Places;
  /** How a worker is started when this one dies; undefined where somebody else does it. */
  readonly command: WorkerCommand | undefined;
  readonly logger: Logger;
  /** Begins or ends debug lines. */
  readonly setVerbose?: (verbose: boolean) => void;
}

/** Milliseconds for the worker before this one to be gone from the lock. */
const LOCK_DEADLINE = 20_000;
/** Milliseconds for journals to be written when this worker gives way. */
const CLOSING_TIME = 500;
const LOCK_PAUSE = 5;
/** Milliseconds for a guardian of the host to be back, where there are mounts of which it may hold what they need. */
const GUARDIAN_DEADLINE = 10_000;

const NOTHING: Held = { generation: '', descriptors: {} };

/** What nydusd's API tells as the version of the package. */
const VERSION = '0.1.0';

/** What `pantala mount` prints. */
export interface MountLine {
  readonly mounted: string;
  readonly driver: string;
  readonly workerPid: number;
  readonly guardianPid: number;
  readonly api: string;
}

/** What the worker answers when it has mounted. */
export interface MountAnswer extends MountLine {
  /** What is worth knowing of the order. */
  readonly warnings: readonly string[];
}

/** The process that fills blobs and answers for all mounts of a state directory. */
export class LazyWorker implements AsyncDisposable {
  readonly #options: WorkerOptions;
  readonly #drivers: Drivers;
  readonly #lock: number;
  readonly #events: ErrorEvents;
  readonly #metrics = new MetricsRegistry({ process: true });
  #guardian: Guardian | undefined;
  #mounts: LazyMounts | undefined;
  #server: ControlServer | undefined;
  /** By whether a guardian of the host is there. */
  readonly #capabilities = new Map<boolean, Promise<Capabilities>>();
  readonly #failed = Promise.withResolvers<PantalaError>();
  readonly #dismissed = Promise.withResolvers<void>();

  private constructor(
    options: WorkerOptions,
    events: ErrorEvents,
    lock: number,
    held: Held | undefined,
    guardian: Guardian | undefined,
  ) {
    this.#options = options;
    this.#events = events;
    this.#lock = lock;
    this.#guardian = guardian;
    this.#drivers = new Drivers({
      inherited: held,
      fuseDirectory: options.places.fuse,
      logger: options.logger,
      onNewDescriptors: () => this.#hold(),
      onFailure: (error) => this.#failed.resolve(error),
    });
  }

  /**
   * Takes over what the worker before this one left, and answers.
   *
   * @param options.replaces whether the worker that serves is to give way
   * @throws `already-exists` when another one serves this state directory
   */
  static async start(given: WorkerOptions & { readonly replaces: boolean }): Promise<LazyWorker> {
    const events = new ErrorEvents();
    const options = { ...given, logger: events.watching(given.logger) };
    const { places, logger, command, replaces } = options;
    mkdirSync(places.stateDirectory, { recursive: true, mode: 0o700 });
    let started: LazyWorker | undefined;
    let held = inherited(process.env) ?? storedDescriptors(process.env, process.pid);
    const link = { held: () => started?.held ?? held ?? NOTHING, logger };
    const settings = settingsOf(options);
    let guardian: Guardian | undefined;
    let locked: number;
    if (places.hostGuardian !== undefined) {
      locked = await lock(places.lock);
      const patience = held === undefined && new MountRecords(places.records).all().length > 0 ? GUARDIAN_DEADLINE : 0;
      const onReached = ({ oomScore }: Guardian) => offerBefore(oomScore);
      const host = { ...link, socket: places.hostGuardian, onReached };
      const met = await HostGuardianLink.open(host, { patience, replaces });
      guardian = met.link;
      held ??= met.taken;
    } else {
      // The guardian listens to one worker alone: who replaces it comes first, so that its end starts no other.
      let own = replaces ? await GuardianLink.join({ ...link, settings }) : undefined;
      if (replaces) await new ControlClient(places.api).call('POST', '/pantala/v1/leave').catch(() => undefined);
      locked = await lock(places.lock);
      own ??= await GuardianLink.join({ ...link, settings });
      if (held === undefined && own !== undefined) held = own.take();
      if (replaces && command !== undefined) own?.replace(command);
      guardian = own;
    }
    const worker = new LazyWorker(options, events, locked, held, guardian);
    started = worker;
    if (guardian === undefined && held !== undefined) await worker.#hold();
    else if (guardian !== undefined && guardian.pid !== 0) offerBefore(guardian.oomScore);
    worker.#mounts = await LazyMounts.open({
      places,
      capabilities: () => worker.capabilities(),
      driver: (name) => worker.#drivers.get(name),
      generation: worker.#drivers.generation,
      logger,
      metrics: worker.#metrics,
      onFailure: (error) => worker.#failed.resolve(error),
    });
    await worker.#drivers.startInherited();
    worker.#server = await ControlServer.listen(places.api, worker.#routes(worker.#mounts), logger);
    return worker;
  }

  /** Resolves when it can serve no longer: its process must end, and another one takes over. */
  get failed(): Promise<PantalaError> {
    return this.#failed.promise;
  }

  capabilities(): Promise<Capabilities> {
    // One that was there comes back: until then this worker holds what is to be held.
    const guarded = this.#guardian instanceof HostGuardianLink && this.#guardian.wasReached;
    let found = this.#capabilities.get(guarded);
    if (found === undefined) {
      found = tryDrivers(this.#options.places.blobs, guarded);
      this.#capabilities.set(guarded, found);
    }
    return found;
  }

  /** What the guardian is to hold. */
  get held(): Held {
    return this.#drivers.held;
  }

  /** 0 while there is none. */
  get guardianPid(): number {
    return this.#guardian?.pid ?? 0;
  }

  /** Resolves when another worker takes over by its own wish. */
  get dismissed(): Promise<void> {
    return this.#dismissed.promise;
  }

  /**
   * Whether nobody can reach it and nobody needs it: its state directory was removed, as by whoever made it for a while,
   * and nothing of it is mounted.
   */
  get isForgotten(): boolean {
    return fstatSync(this.#lock).nlink === 0 && this.#mounts?.isAnyThere === false;
  }

  /** Has a guardian hold what there is to hold. */
  async #hold(): Promise<void> {
    storeDescriptors(this.held, process.env, this.#options.logger);
    if (this.#guardian !== undefined) {
      await this.#guardian.renew();
      return;
    }
    const { logger } = this.#options;
    const settings = settingsOf(this.#options);
    this.#guardian = await GuardianLink.start({ settings, held: () => this.held, logger });
    offerBefore(this.#guardian.oomScore);
  }

  #line({ mounted, driver }: MountState): MountLine {
    const { places } = this.#options;
    return { mounted, driver, workerPid: process.pid, guardianPid: this.guardianPid, api: places.api };
  }

  #routes(mounts: LazyMounts): ControlRoutes {
    const { setVerbose = () => {} } = this.#options;
    const service = new NydusdService({
      mounts,
      waiting: () => this.#drivers.waiting,
      setVerbose,
      stop: () => process.kill(process.pid, 'SIGTERM'),
    });
    return {
      ...nydusdRoutes({
        version: VERSION,
        service,
        cache: mounts.cache,
        events: this.#events,
        metrics: this.#metrics,
      }),
      'GET /pantala/v1/worker': async () => ({
        body: {
          pid: process.pid,
          guardian: this.guardianPid,
          spared: this.#guardian?.oomScore === NEVER_TAKEN,
          hostGuardian: this.#options.places.hostGuardian,
        },
      }),
      'POST /pantala/v1/leave': async () => {
        this.#dismissed.resolve();
        return {};
      },
      'GET /pantala/v1/capabilities': async () => ({ body: await this.capabilities() }),
      'GET /pantala/v1/mounts': async () => ({
        body: mounts.list().map((state) => ({ ...state, ...this.#line(state) })),
      }),
      'POST /pantala/v1/mounts': async ({ url, body, signal }) => {
        const order = body as MountOrder;
        if (url.searchParams.get('trace') === 'true') return { body: await this.#traced(mounts, order, signal) };
        return { body: (await this.#mounted(mounts, order, signal)).answer };
      },
      'POST /pantala/v1/prefetch': async ({ url, body, signal }) => ({
        body: await mounts.prefetch(url.searchParams.get('target') ?? '', (body ?? {}) as PrefetchSettings, signal),
      }),
      'DELETE /pantala/v1/mounts': async ({ url }) => {
        const target = url.searchParams.get('target') ?? '';
        await mounts.unmount(target, { detach: url.searchParams.get('lazy') === 'true' });
        return { body: { unmounted: target } };
      },
    };
  }

  async #mounted(
    mounts: LazyMounts,
    order: MountOrder,
    signal: AbortSignal,
  ): Promise<{ readonly state: MountState; readonly answer: MountAnswer }> {
    const { logger, places } = this.#options;
    const isCached = (id: string) => existsSync(join(places.blobs, id + DATA_SUFFIX));
    await using resolved = await resolveOrder(order, { logger, signal, isCached });
    const state = await mounts.mount(resolved.request);
    return { state, answer: { ...this.#line(state), warnings: resolved.warnings } };
  }

  /** Mounts, and tells from then on what is filled for it: what `mount` answers as the first line, then a trace. */
  async #traced(mounts: LazyMounts, order: MountOrder, signal: AbortSignal): Promise<AsyncIterable<string>> {
    using listening = new DisposableStack();
    const trace = listening.use(new FillTrace(mounts.cache.fills));
    const { state, answer } = await this.#mounted(mounts, order, signal);
    const line = `${JSON.stringify(answer)}\n`;
    const view = mounts.views().find((each) => each.request.target === state.mounted);
    listening.move();
    return (async function* () {
      yield line;
      yield* trace.lines(signal, traceOf(view?.image));
    })();
  }

  /**
   * Ends the service for good: nobody holds back readers any more.
   *
   * @throws `failed-precondition` naming mounts that are in use and cannot be completed
   */
  async stop(signal: AbortSignal): Promise<void> {
    await this.#mounts?.stop(signal);
    await this.#drivers.disconnect();
    await this.#guardian?.leave();
  }

  /** Gives way to another worker: mounts and guardian stay. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server?.[Symbol.asyncDispose]();
    await this.#drivers.pause();
    // The next worker waits for the lock, and readers for it; what is not closed by then is closed by the process's end.
    await Promise.race([this.#mounts?.[Symbol.asyncDispose](), sleep(CLOSING_TIME)]);
    closeSync(this.#lock);
    this.#guardian?.[Symbol.dispose]();
  }
}

function settingsOf({ places, command }: WorkerOptions): GuardianSettings {
  return {
    socket: places.guardianSocket,
    ...(command === undefined ? {} : { worker: command }),
    controlGroups: guardianGroups(controlGroups()),
    log: places.log,
  };
}

async function lock(path: string): Promise<number> {
  const file = openSync(path, 'a', 0o600);
  const deadline = monotonicNow() + LOCK_DEADLINE;
  while (!tryLock(file)) {
    if (monotonicNow() > deadline) {
      closeSync(file);
      throw new PantalaError('already-exists', `another worker serves ${path}`);
    }
    await sleep(LOCK_PAUSE);
  }
  return file;
}
