import type { Logger } from '@pantala/base';
import type { LazyWorker } from './worker.ts';

/** Milliseconds to complete what is in use when the service is to end for good. */
const STOP_DEADLINE = 80_000;

/** Milliseconds between two looks whether the worker is forgotten. */
const LOOK_INTERVAL = 5_000;

/**
 * Resolves when the worker may end: told to give way (SIGUSR2), or to end the service (SIGTERM, SIGINT);
 * the service ends by itself when it is forgotten.
 *
 * @returns whether the service has ended
 */
export async function untilEnded(worker: LazyWorker, logger: Logger): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  let stopping = false;
  const stop = (): void => {
    if (stopping) return;
    stopping = true;
    worker.stop(AbortSignal.timeout(STOP_DEADLINE)).then(
      () => {
        clearInterval(looking);
        resolve(true);
      },
      (error: unknown) => {
        stopping = false;
        logger.error('the service goes on', { error });
      },
    );
  };
  const giveWay = (): void => resolve(false);
  const looking = setInterval(() => {
    if (!worker.isForgotten) return;
    logger.warn('the state directory is gone, and nothing of it is mounted: the service ends');
    stop();
  }, LOOK_INTERVAL);
  process.on('SIGTERM', stop).on('SIGINT', stop).on('SIGUSR2', giveWay);
  void worker.dismissed.then(giveWay);
  void worker.failed.then((error) => {
    // Another one takes over, with what this one has not answered.
    logger.error('the worker cannot go on', { error });
    process.kill(process.pid, 'SIGKILL');
  });
  return promise;
}
