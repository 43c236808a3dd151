import { createClient, managerV2 } from '@pantala/api';
import { type Logger, PantalaError, sleep } from '@pantala/base';
import { type Address, type PeerConfig, readDynconfig } from './config/index.ts';
import type { HostName } from './host/identity.ts';

/** Milliseconds that the manager may take to answer. */
const MANAGER_TIMEOUT = 10_000;

/** Milliseconds between two questions while nobody has named a scheduler yet. */
const IMPATIENT_INTERVAL = 1_000;

export interface SchedulerListOptions {
  readonly config: PeerConfig;
  readonly name: HostName;
  /** Named by the command, besides those of the configuration. */
  readonly given: readonly Address[];
  /** Upstream's dynconfig.yaml: read at each refresh, only without a manager. */
  readonly dynconfigPath: string | undefined;
  readonly logger: Logger;
  /** Called with the complete list whenever it was read. */
  readonly changed: (addresses: readonly Address[]) => void;
}

/** Which schedulers there are: by the configuration, by a file that may change, by the manager. */
export class SchedulerList implements AsyncDisposable {
  readonly #options: SchedulerListOptions;
  readonly #stop = new AbortController();
  readonly #running: Promise<void>;
  #known: readonly Address[] = [];
  #failing = false;

  constructor(options: SchedulerListOptions) {
    this.#options = options;
    this.#set([]);
    this.#running = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new PantalaError('cancelled', 'the peer stops'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { config, dynconfigPath, logger } = this.#options;
    const { manager, refreshInterval } = config;
    if (manager === undefined && dynconfigPath === undefined) return;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        this.#set(manager === undefined ? fromFile(dynconfigPath) : await this.#fromManager(manager, signal));
        this.#failing = false;
      } catch (thrown) {
        // What was known stays: schedulers do not vanish because nobody can say that they are there.
        if (!this.#failing && !signal.aborted) {
          logger.warn('the list of schedulers cannot be read', { reason: PantalaError.from(thrown).message });
        }
        this.#failing = true;
      }
      const pause = this.#known.length === 0 ? Math.min(IMPATIENT_INTERVAL, refreshInterval) : refreshInterval;
      await sleep(pause, signal).catch(() => undefined);
    }
  }

  #set(found: readonly Address[]): void {
    const { config, given, changed } = this.#options;
    const all = new Map<string, Address>();
    for (const address of [...found, ...given, ...config.schedulers])
      all.set(`${address.host}:${address.port}`, address);
    this.#known = [...all.values()];
    changed(this.#known);
  }

  async #fromManager(address: Address, signal: AbortSignal): Promise<Address[]> {
    const { config, name } = this.#options;
    using manager = createClient(managerV2.Manager, address, { deadline: MANAGER_TIMEOUT, tls: config.tls.manager });
    const { schedulers } = await manager.listSchedulers(
      {
        sourceType: config.seed.enabled ? managerV2.SourceType.SEED_PEER_SOURCE : managerV2.SourceType.PEER_SOURCE,
        hostname: name.hostname,
        ip: name.ip,
        ...(config.host.idc === undefined ? {} : { idc: config.host.idc }),
        ...(config.host.location === undefined ? {} : { location: config.host.location }),
        schedulerClusterId: BigInt(config.host.schedulerClusterId ?? 0),
      },
      { signal },
    );
    // A task belongs to one scheduler of its cluster: those of other clusters than the preferred one do not count.
    const cluster = schedulers[0]?.schedulerClusterId;
    return schedulers
      .filter(({ schedulerClusterId }) => schedulerClusterId === cluster)
      .map(({ ip, port }) => ({ host: ip, port }));
  }
}

function fromFile(path: string | undefined): readonly Address[] {
  return path === undefined ? [] : readDynconfig(path).schedulers;
}
