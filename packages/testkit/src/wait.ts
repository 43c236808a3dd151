import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { PantalaError } from '@pantala/base';

/** Long enough that a busy small machine does not turn a slow start into a failure. */
export const PATIENCE = 60_000;
const POLL_INTERVAL = 25;

export interface UntilOptions {
  /** Said in the error when time is up. */
  readonly what: string;
  /** Milliseconds. */
  readonly timeout?: number;
  /** Milliseconds between two tries. */
  readonly interval?: number;
}

/**
 * Tries until something else than undefined or false comes back.
 *
 * @throws `deadline-exceeded` with the last error as its cause
 */
export async function until<T>(
  attempt: () => T | undefined | false | Promise<T | undefined | false>,
  options: UntilOptions,
): Promise<T> {
  const deadline = performance.now() + (options.timeout ?? PATIENCE);
  let last: unknown;
  for (;;) {
    try {
      const result = await attempt();
      if (result !== undefined && result !== false) return result;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) {
      throw new PantalaError('deadline-exceeded', `${options.what}: not within ${options.timeout ?? PATIENCE} ms`, {
        cause: last,
      });
    }
    await sleep(options.interval ?? POLL_INTERVAL);
  }
}

/** Fails when `work` takes longer than `milliseconds`: a hang becomes an error that says what hung. */
export async function within<T>(milliseconds: number, what: string, work: Promise<T>): Promise<T> {
  const timer = Promise.withResolvers<never>();
  const handle = setTimeout(
    () => timer.reject(new PantalaError('deadline-exceeded', `${what}: hangs (not done in ${milliseconds} ms)`)),
    milliseconds,
  );
  try {
    return await Promise.race([work, timer.promise]);
  } finally {
    clearTimeout(handle);
  }
}

/** Whether somebody accepts connections there. */
export function accepts(host: string, port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect({ host, port });
  socket.setTimeout(1000);
  const finish = (answer: boolean): void => {
    socket.destroy();
    resolve(answer);
  };
  socket.once('connect', () => finish(true));
  socket.once('error', () => finish(false));
  socket.once('timeout', () => finish(false));
  return promise;
}
