import { createServer, type RpcAddress } from '@pantala/api';
import { type Logger, type Metrics, monotonicNow, PantalaError } from '@pantala/base';
import { followDynconfig } from './dynconfig.ts';
import { Engine } from './engine.ts';
import { ManagerLink } from './manager-link.ts';
import { exposeCounts, exposeState, SchedulerMetrics } from './metrics.ts';
import { compileSchedulerOptions, type SchedulerOptions } from './options.ts';
import { type Admit, pantalaService, schedulerService } from './scheduler-service.ts';
import { SeedTriggers } from './seed-triggers.ts';

export interface SchedulerDependencies {
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** Aborted when the program is to stop starting. */
  readonly signal?: AbortSignal;
}

/** A scheduler that listens. Disposing it stops it. */
export interface RunningScheduler extends AsyncDisposable {
  /** With the port that was really opened. */
  readonly address: RpcAddress;
}

/**
 * Starts a scheduler; resolves when it listens. The manager may come later: it is asked until it answers.
 *
 * @throws `unavailable` when the address cannot be had
 */
export async function startScheduler(
  options: SchedulerOptions,
  deps: SchedulerDependencies,
): Promise<RunningScheduler> {
  const settings = compileSchedulerOptions(options);
  const { logger } = deps;
  await using starting = new AsyncDisposableStack();
  const engine = starting.use(new Engine(settings.scheduling, logger));
  starting.use(new SeedTriggers(engine, logger, { timeout: settings.seedDownloadTimeout, tls: settings.seedTls }));
  const metrics = new SchedulerMetrics(deps.metrics, settings.hostMetrics);
  exposeCounts(deps.metrics, () => ({ ...engine.core.counts }));
  exposeState(deps.metrics, () => engine.core.counts.waiting);
  const admit = rateLimit(settings.requestRateLimit);
  const server = starting.use(
    await createServer({
      services: [schedulerService(engine, metrics, admit, logger), pantalaService(engine, admit, logger)],
      address: settings.listen,
      tls: settings.tls,
    }),
  );
  if (settings.manager !== undefined) {
    starting.use(new ManagerLink(engine, settings, settings.manager, server.address, logger));
  } else if (settings.dynconfigPath !== undefined) {
    starting.use(followDynconfig(settings.dynconfigPath, settings.dynconfigRefreshInterval, engine, logger));
  }
  deps.signal?.throwIfAborted();
  const running = starting.move();
  logger.info('scheduler listens', { address: server.address });
  return { address: server.address, [Symbol.asyncDispose]: () => running.disposeAsync() };
}

/** At most `limit` a second, with a burst of the same size, as upstream has it. */
function rateLimit(limit: number): Admit {
  let tokens = limit;
  let filledAt = monotonicNow();
  return () => {
    const now = monotonicNow();
    tokens = Math.min(limit, tokens + ((now - filledAt) * limit) / 1000);
    filledAt = now;
    if (tokens < 1) throw new PantalaError('resource-exhausted', `more than ${limit} calls a second`);
    tokens--;
  };
}
