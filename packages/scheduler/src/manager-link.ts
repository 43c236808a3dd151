import { networkInterfaces } from 'node:os';
import { createClient, managerV2, type RpcAddress, type RpcClient } from '@pantala/api';
import { Backoff, type Logger, PantalaError, sleep } from '@pantala/base';
import { clusterLimits } from './dynconfig.ts';
import type { Engine } from './engine.ts';
import type { ManagerSettings, SchedulerSettings } from './options.ts';

/** Pauses between attempts to reach the manager, in milliseconds. */
const FIRST_PAUSE = 200;
const MAX_PAUSE = 5_000;

/** Milliseconds for one call of the manager. */
const CALL_DEADLINE = 10_000;

/** Registers the scheduler, keeps it alive in the manager's list, and follows the cluster's limits. */
export class ManagerLink implements AsyncDisposable {
  readonly #engine: Engine;
  readonly #settings: SchedulerSettings;
  readonly #manager: ManagerSettings;
  readonly #address: { readonly ip: string; readonly port: number };
  readonly #logger: Logger;
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;

  constructor(
    engine: Engine,
    settings: SchedulerSettings,
    manager: ManagerSettings,
    listening: RpcAddress,
    logger: Logger,
  ) {
    this.#engine = engine;
    this.#settings = settings;
    this.#manager = manager;
    this.#logger = logger;
    this.#address = advertised(settings, listening);
    this.#running = this.#run();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort(new PantalaError('cancelled', 'the scheduler stops'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    const backoff = new Backoff({ initial: FIRST_PAUSE, limit: MAX_PAUSE });
    using client = createClient(managerV2.Manager, this.#manager.address, {
      tls: this.#manager.tls,
      deadline: CALL_DEADLINE,
    });
    while (!signal.aborted) {
      try {
        await this.#register(client, signal);
        backoff.reset();
        await this.#keepAlive(client, signal);
      } catch (error) {
        if (signal.aborted) return;
        this.#logger.warn('manager not reached', { error: PantalaError.from(error).message });
      }
      await sleep(backoff.next(), signal).catch(() => {});
    }
  }

  async #register(client: RpcClient<typeof managerV2.Manager>, signal: AbortSignal): Promise<void> {
    const { hostname, idc, location } = this.#settings;
    const { ip, port } = this.#address;
    const schedulerClusterId = BigInt(this.#manager.schedulerClusterId);
    const config = JSON.stringify({ manager_keep_alive_interval: this.#manager.keepAliveInterval * 1_000_000 });
    await client.updateScheduler(
      {
        sourceType: managerV2.SourceType.SCHEDULER_SOURCE,
        hostname,
        ip,
        port,
        schedulerClusterId,
        features: ['schedule'],
        config: Buffer.from(config),
        ...(idc === '' ? {} : { idc }),
        ...(location === '' ? {} : { location }),
      },
      { signal },
    );
    this.#logger.info('registered at the manager', { hostname, ip, port });
    await this.#followCluster(client, signal);
  }

  /** The cluster's limits, as the manager has them now. */
  async #followCluster(client: RpcClient<typeof managerV2.Manager>, signal: AbortSignal): Promise<void> {
    const scheduler = await client.getScheduler(
      {
        sourceType: managerV2.SourceType.SCHEDULER_SOURCE,
        hostname: this.#settings.hostname,
        ip: this.#address.ip,
        schedulerClusterId: BigInt(this.#manager.schedulerClusterId),
      },
      { signal },
    );
    const cluster = scheduler.schedulerCluster;
    this.#engine.core.configure(
      clusterLimits(
        parseJson(cluster?.config),
        parseJson(cluster?.clientConfig),
        parseJson(scheduler.seedPeers[0]?.seedPeerCluster?.config),
      ),
    );
  }

  /** Until the manager ends the stream or cannot be reached. */
  async #keepAlive(client: RpcClient<typeof managerV2.Manager>, signal: AbortSignal): Promise<void> {
    const scope = new AbortController();
    const stopped = AbortSignal.any([signal, scope.signal]);
    try {
      await client.keepAlive(this.#beats(client, stopped), { signal: stopped, deadline: Number.POSITIVE_INFINITY });
    } finally {
      scope.abort(new PantalaError('cancelled', 'the stream is over'));
    }
  }

  async *#beats(client: RpcClient<typeof managerV2.Manager>, signal: AbortSignal) {
    let refreshAt = Date.now() + this.#settings.dynconfigRefreshInterval;
    while (!signal.aborted) {
      yield {
        sourceType: managerV2.SourceType.SCHEDULER_SOURCE,
        hostname: this.#settings.hostname,
        ip: this.#address.ip,
        clusterId: BigInt(this.#manager.schedulerClusterId),
      };
      await sleep(this.#manager.keepAliveInterval, signal).catch(() => {});
      if (signal.aborted || Date.now() < refreshAt) continue;
      refreshAt = Date.now() + this.#settings.dynconfigRefreshInterval;
      await this.#followCluster(client, signal).catch((error: unknown) => {
        this.#logger.warn('limits of the cluster not refreshed', { error: PantalaError.from(error).message });
      });
    }
  }
}

function parseJson(bytes: Uint8Array | undefined): unknown {
  if (bytes === undefined || bytes.length === 0) return undefined;
  try {
    return JSON.parse(Buffer.from(bytes).toString());
  } catch {
    return undefined;
  }
}

/** What peers are told: an address that is not a wildcard. */
function advertised(settings: SchedulerSettings, listening: RpcAddress): { ip: string; port: number } {
  const bound = 'port' in listening ? listening : settings.listen;
  const port = settings.advertise.port ?? bound.port;
  if (settings.advertise.ip !== undefined) return { ip: settings.advertise.ip, port };
  if (bound.host !== '0.0.0.0' && bound.host !== '::') return { ip: bound.host, port };
  for (const addresses of Object.values(networkInterfaces())) {
    for (const { family, internal, address } of addresses ?? [])
      if (family === 'IPv4' && !internal) return { ip: address, port };
  }
  return { ip: '127.0.0.1', port };
}
