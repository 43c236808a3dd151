import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { PantalaError } from '@pantala/base';
import type { ProgramLogger } from '@pantala/service';
import { notifyReady } from '../guardian/descriptor-store.ts';
import { untilEnded } from './end-of-worker.ts';
import type { Places } from './places.ts';
import { LazyWorker } from './worker.ts';

/** Where a worker that serves is reached. */
export interface ServingWorker {
  readonly api: string;
  readonly guardianPid: number;
}

/**
 * Runs a worker in this process, for whatever starts it again when it has died: systemd, or what runs containers. Its
 * guardian only holds. Resolves when it was told to end.
 *
 * @throws `already-exists` when another one serves the state directory; `permission-denied`
 */
export async function serveWorker(
  places: Places,
  logger: ProgramLogger,
  onReady: (worker: ServingWorker) => void,
): Promise<void> {
  try {
    for (const directory of [places.stateDirectory, places.cacheDirectory])
      mkdirSync(directory, { recursive: true, mode: 0o700 });
    writeFileSync(places.service, '');
  } catch (error) {
    throw PantalaError.from(error);
  }
  const setVerbose = (verbose: boolean): void => logger.setVerbose(verbose);
  await using worker = await LazyWorker.start({ places, command: undefined, logger, setVerbose, replaces: false });
  notifyReady(process.env, logger);
  logger.info('worker serves', { pid: process.pid, api: places.api, ms: Math.round(performance.now()) });
  onReady({ api: places.api, guardianPid: worker.guardianPid });
  // From here on commands may start one themselves.
  if (await untilEnded(worker, logger)) rmSync(places.service, { force: true });
}
