import { flushCompileCache } from 'node:module';
import { resolve } from 'node:path';
import { DEFAULT_GUARDIAN_SOCKET } from '@pantala/lazyfs/client';
import { HostGuardian, lineLogger } from '@pantala/lazyfs/guardian';
import { type CommonOptions, printJson } from '../../output.ts';

interface GuardianOptions extends CommonOptions {
  readonly socket?: string;
}

/** A guardian for a worker in a container, in this process, until it is told to end and may. */
export async function guardian(options: GuardianOptions): Promise<number> {
  const logger = lineLogger();
  const socket = resolve(options.socket ?? DEFAULT_GUARDIAN_SOCKET);
  await using guard = await HostGuardian.listen({ socket, logger, env: process.env });
  // Compiled once, the next one starts without the compiler of TypeScript, a third of its memory.
  flushCompileCache();
  if (options.json === true) printJson({ ready: true, pid: process.pid, socket, oomScore: guard.oomScore });
  const { promise, resolve: end } = Promise.withResolvers<void>();
  const stop = (): void => {
    if (!guard.isLastHolder) end();
    else logger.error('this guardian stays: it is the last holder, and readers would be let through to holes');
  };
  process.on('SIGTERM', stop).on('SIGINT', stop).on('SIGHUP', stop);
  await promise;
  return 0;
}
