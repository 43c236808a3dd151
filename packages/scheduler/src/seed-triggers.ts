import { commonV2, create, createClient, dfdaemonV2, type RpcTls } from '@pantala/api';
import { type Logger, monotonicNow, PantalaError } from '@pantala/base';
import type { Engine, SeedTrigger } from './engine.ts';
import { originOf } from './messages.ts';
import { TRIGGER_SIGN_INTERVAL } from './options.ts';

/** Has seeds fetch tasks, and tells the core how it goes. */
export class SeedTriggers implements AsyncDisposable {
  readonly #engine: Engine;
  readonly #logger: Logger;
  readonly #timeout: number;
  readonly #tls: RpcTls | undefined;
  readonly #stopping = new AbortController();
  readonly #running = new Set<Promise<void>>();

  constructor(engine: Engine, logger: Logger, options: { readonly timeout: number; readonly tls: RpcTls | undefined }) {
    this.#engine = engine;
    this.#logger = logger;
    this.#timeout = options.timeout;
    this.#tls = options.tls;
    engine.onTrigger((trigger) => this.#start(trigger));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopping.abort(new PantalaError('cancelled', 'the scheduler stops'));
    await Promise.all(this.#running);
  }

  #start(trigger: SeedTrigger): void {
    const running = this.#run(trigger).finally(() => this.#running.delete(running));
    this.#running.add(running);
  }

  async #run(trigger: SeedTrigger): Promise<void> {
    const { taskId, seedHostId } = trigger;
    const logger = this.#logger.child({ taskId, hostId: seedHostId });
    try {
      await this.#download(trigger, logger);
      logger.info('seed has fetched');
      this.#engine.dispatch({ type: 'seedTriggerEnded', taskId, seedHostId, error: undefined });
    } catch (thrown) {
      const error = PantalaError.from(thrown);
      if (!this.#stopping.signal.aborted) logger.warn('seed failed', { code: error.code, error: error.message });
      this.#engine.dispatch({ type: 'seedTriggerEnded', taskId, seedHostId, error: error.code });
    }
  }

  async #download(trigger: SeedTrigger, logger: Logger): Promise<void> {
    const { taskId, seedHostId } = trigger;
    const host = this.#engine.host(seedHostId);
    const task = this.#engine.core.task(taskId);
    const origin = task === undefined ? undefined : originOf(task);
    if (host === undefined) throw new PantalaError('unavailable', `seed ${seedHostId} is not known any more`);
    if (origin === undefined)
      throw new PantalaError('failed-precondition', `nobody has said where task ${taskId} is from`);
    using client = createClient(dfdaemonV2.DfdaemonUpload, { host: host.ip, port: host.port }, { tls: this.#tls });
    const responses = client.downloadTask(
      { download: triggerOf(origin, trigger) },
      { signal: this.#stopping.signal, deadline: this.#timeout },
    );
    let toldAt = Number.NEGATIVE_INFINITY;
    for await (const response of responses) {
      if (response.taskId !== '' && response.taskId !== taskId) {
        logger.warn('seed fetches another task than it was asked for', { fetched: response.taskId });
      }
      if (monotonicNow() - toldAt < TRIGGER_SIGN_INTERVAL) continue;
      toldAt = monotonicNow();
      this.#engine.dispatch({ type: 'seedTriggerProgressed', taskId, seedHostId });
    }
  }
}

/** What a seed is asked for: what a peer asked for, into its store only; from the origin unless others hold some of it. */
function triggerOf(origin: commonV2.Download, { range, needBackToSource }: SeedTrigger): commonV2.Download {
  const { outputPath: _path, range: _range, ...rest } = origin;
  return Object.assign(create(commonV2.DownloadSchema), rest, {
    needBackToSource,
    disableBackToSource: false,
    prefetch: false,
    isPrefetch: false,
    metadataOnly: false,
    needPieceContent: false,
    forceHardLink: false,
    overwrite: false,
    ...(range === undefined
      ? {}
      : { range: create(commonV2.RangeSchema, { start: BigInt(range.start), length: BigInt(range.length) }) }),
  });
}
