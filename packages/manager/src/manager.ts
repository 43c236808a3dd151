import { createServer, managerV2, serve } from '@pantala/api';
import { type Logger, throwIfAborted } from '@pantala/base';
import {
  type AdminRoutes,
  AdminServer,
  healthRoutes,
  type MetricsRegistry,
  metricsRoutes,
  Profiler,
  profileRoutes,
  routed,
} from '@pantala/service';
import { managerMetrics } from './metrics.ts';
import { compileManagerOptions, type ListenAddress, type ManagerOptions } from './options.ts';
import { Presence } from './presence.ts';
import { Repository } from './repository.ts';
import { managerHandlers } from './service.ts';

export interface ManagerDependencies {
  readonly logger: Logger;
  readonly metrics: MetricsRegistry;
  /** Ends the start before it is done. */
  readonly signal?: AbortSignal;
}

/** A manager that answers. Disposing it stops it in an orderly way. */
export interface Manager extends AsyncDisposable {
  readonly addresses: {
    readonly grpc: ListenAddress;
    readonly rest: ListenAddress;
    readonly metrics: ListenAddress | undefined;
    readonly profiles: ListenAddress | undefined;
  };
}

/**
 * Starts a manager; resolves when it answers.
 *
 * @throws `failed-precondition` or `unavailable` for an address that cannot be had, `internal` for a database that
 *   cannot be read
 */
export async function startManager(given: ManagerOptions, dependencies: ManagerDependencies): Promise<Manager> {
  const options = compileManagerOptions(given);
  const { logger, metrics, signal } = dependencies;
  await using resources = new AsyncDisposableStack();
  const repository = resources.use(new Repository(options.database));
  const presence = resources.use(new Presence(repository, options.keepAliveTimeout, logger));
  metrics.gauge('dragonfly_manager_active_schedulers', {
    help: 'Schedulers that keep themselves alive.',
    collect: () => repository.activeSchedulers(0).length,
  });
  const grpc = await createServer({
    address: options.grpc,
    tls: options.tls,
    services: [serve(managerV2.Manager, managerHandlers(repository, presence, managerMetrics(metrics)))],
  });
  // A stop of the manager is no leave of its members.
  resources.defer(async () => {
    presence[Symbol.dispose]();
    await grpc.stop();
  });
  const open = async (address: ListenAddress | undefined, purpose: string, routes: AdminRoutes) =>
    address === undefined
      ? undefined
      : resources.use(await AdminServer.listen({ ...address, purpose }, routed(routes), logger));
  const rest = await open(
    options.rest,
    'health',
    healthRoutes([], () => true),
  );
  const metricsServer = await open(options.metrics, 'metrics', metricsRoutes(metrics));
  const profiles =
    options.profiles && (await open(options.profiles, 'pprof', profileRoutes(resources.use(await Profiler.start()))));
  throwIfAborted(signal);
  const owned = resources.move();
  return {
    addresses: {
      grpc: 'port' in grpc.address ? grpc.address : options.grpc,
      rest: rest ?? options.rest,
      metrics: metricsServer,
      profiles,
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}
