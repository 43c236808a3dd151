import { readFile } from 'node:fs/promises';
import { flushCompileCache } from 'node:module';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { ERROR_SURFACES, PantalaError } from '@pantala/base';
import { readBootstrap } from '@pantala/rafs';
import { createLogger } from '@pantala/service';
import { controlGroups, joinGroups } from '../guardian/control-groups.ts';
import { TAKE_OVER } from '../guardian/messages.ts';
import { giveUpSparing } from '../guardian/oom-score.ts';
import { MountRecords } from '../mounting/mount-record.ts';
import { untilEnded } from './end-of-worker.ts';
import { type Places, placesOf } from './places.ts';
import { LazyWorker } from './worker.ts';

/**
 * The worker's process.
 *
 * @param args `--state-dir`, `--cache-dir`, `--control-group` for each group that it belongs to, and `--role`: `first`
 *   is started by a command, `replacing` as well while another one serves, `worker` by the guardian, `standby` waits until the guardian says that it is needed
 * @returns the exit status
 */
async function runWorker(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      'state-dir': { type: 'string' },
      'cache-dir': { type: 'string' },
      'control-group': { type: 'string', multiple: true },
      role: { type: 'string', default: 'first' },
    },
  });
  const { role } = values;
  const groups =
    role === 'first' || role === 'replacing'
      ? controlGroups().map(({ directory }) => directory)
      : (values['control-group'] ?? []);
  const places = placesOf(values['state-dir'] ?? '', values['cache-dir'] ?? '');
  if (role === 'worker' || role === 'standby') {
    // The guardian's own group and its protection are not for its children.
    joinGroups(groups);
    giveUpSparing();
  }
  using logger = createLogger({ verbose: false, file: undefined, console: true });
  if (role === 'standby') {
    await rehearse(places);
    if (!(await toldToTakeOver())) return 0;
  }
  // A process that is killed leaves none behind for the next one.
  flushCompileCache();
  const script = process.argv[1] ?? '';
  const command = {
    executable: process.execPath,
    arguments: [
      ...process.execArgv,
      script,
      '--state-dir',
      places.stateDirectory,
      '--cache-dir',
      places.cacheDirectory,
      ...groups.flatMap((group) => ['--control-group', group]),
    ],
  };
  try {
    const setVerbose = (verbose: boolean) => logger.setVerbose(verbose);
    const replaces = role === 'replacing';
    await using worker = await LazyWorker.start({ places, command, logger, setVerbose, replaces });
    logger.info('worker serves', { pid: process.pid, role, ms: Math.round(performance.now()) });
    flushCompileCache();
    await untilEnded(worker, logger);
    return 0;
  } catch (thrown) {
    const error = PantalaError.from(thrown);
    logger.error('the worker ends', { error });
    return ERROR_SURFACES[error.code].exit;
  }
}

/** Bootstraps that a standby reads before it is needed. */
const REHEARSED = 3;

/** Reads bootstraps once: code that the engine has never run takes several times as long, while readers wait. */
async function rehearse({ records, bootstraps }: Places): Promise<void> {
  try {
    const digests = new Set(new MountRecords(records).all().map(({ bootstrap }) => bootstrap));
    for (const digest of [...digests].slice(0, REHEARSED)) {
      const { image, chunksOf } = readBootstrap(await readFile(join(bootstraps, digest)));
      for (const index of image.blobs.keys()) chunksOf(index);
    }
  } catch {
    // Whoever takes over finds it out, and says so.
  }
}

/** Waits until the guardian needs this process; false when the guardian has gone. */
async function toldToTakeOver(): Promise<boolean> {
  // Everything is loaded: from here on it takes some milliseconds.
  process.stdout.write('ready\n');
  for await (const line of createInterface({ input: process.stdin })) if (line === TAKE_OVER) return true;
  return false;
}

process.exit(await runWorker(process.argv.slice(2)));
