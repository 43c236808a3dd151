import { ERROR_SURFACES, type Logger, PantalaError } from '@pantala/base';

/** Time for an orderly stop: transfers in flight end or are cut, hosts take their leave of the scheduler. */
export const STOP_DEADLINE_MS = 10_000;

export interface ProgramOptions<Running extends AsyncDisposable> {
  /** As in "scheduler". */
  readonly name: string;
  readonly logger: Logger;
  /** Starts the program; the signal is aborted when it is to stop before it is up. */
  start(signal: AbortSignal): Promise<Running>;
  /** Called once it answers. */
  ready?(running: Running): void;
  readonly stopDeadlineMs?: number;
}

/**
 * Runs a program until SIGTERM or SIGINT, then stops it in order. A second signal, or a stop that takes longer than
 * its deadline, ends the process at once. What nobody caught is logged, and ends the process after an orderly stop.
 *
 * @returns the exit status: 0 after a stop by signal
 */
export async function runProgram<Running extends AsyncDisposable>(options: ProgramOptions<Running>): Promise<number> {
  const { name, logger } = options;
  const stopping = Promise.withResolvers<number>();
  const starting = new AbortController();
  let stops = 0;
  const onSignal = (signal: NodeJS.Signals): void => {
    stops++;
    if (stops > 1) {
      logger.warn(`${name}: second ${signal}, ending at once`);
      process.exit(130);
    }
    logger.info(`${name}: ${signal}, stopping`);
    starting.abort();
    stopping.resolve(0);
  };
  const onCrash = (error: unknown): void => {
    logger.error(`${name}: an error that nobody caught; stopping`, { error: asError(error) });
    process.stderr.write(`${name}: ${asError(error).stack ?? String(error)}\n`);
    starting.abort();
    stopping.resolve(ERROR_SURFACES.internal.exit);
  };
  process.on('SIGTERM', onSignal).on('SIGINT', onSignal);
  process.on('uncaughtException', onCrash).on('unhandledRejection', onCrash);
  try {
    const running = await options.start(starting.signal);
    logger.info(`${name}: started`, { pid: process.pid });
    options.ready?.(running);
    const status = await stopping.promise;
    const deadline = setTimeout(() => {
      logger.error(`${name}: not stopped in time, ending at once`);
      process.exit(status === 0 ? ERROR_SURFACES['deadline-exceeded'].exit : status);
    }, options.stopDeadlineMs ?? STOP_DEADLINE_MS);
    await running[Symbol.asyncDispose]();
    clearTimeout(deadline);
    logger.info(`${name}: stopped`);
    return status;
  } catch (error) {
    if (starting.signal.aborted && PantalaError.from(error).code === 'cancelled') return await stopping.promise;
    logger.error(`${name}: ${asError(error).message}`, { error });
    throw error;
  } finally {
    process.off('SIGTERM', onSignal).off('SIGINT', onSignal);
    process.off('uncaughtException', onCrash).off('unhandledRejection', onCrash);
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
