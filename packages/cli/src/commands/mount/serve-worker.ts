import { serveWorker } from '@pantala/lazyfs/worker';
import { createLogger } from '@pantala/service';
import { printJson } from '../../output.ts';
import { placesFor, type WorkerOptions } from './worker.ts';

interface ServeWorkerOptions extends WorkerOptions {
  readonly guardian?: string;
  readonly verbose?: boolean;
}

/** The worker of lazy mounts in this process, until it is told to end. */
export async function worker(options: ServeWorkerOptions): Promise<number> {
  using logger = createLogger({ verbose: options.verbose === true, file: undefined, console: true });
  await serveWorker(placesFor(options, options.guardian), logger, (ready) => {
    if (options.json === true) printJson({ ready: true, pid: process.pid, ...ready });
  });
  return 0;
}
