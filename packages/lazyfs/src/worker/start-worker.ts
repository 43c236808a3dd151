import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync } from 'node:fs';
import { getCompileCacheDir } from 'node:module';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { monotonicNow, PantalaError, sleep } from '@pantala/base';
import { ControlClient, NobodyListens } from './control-client.ts';
import type { Places } from './places.ts';

const SCRIPT = fileURLToPath(new URL('./worker-process.ts', import.meta.url));
/**
 * A small space for what is short-lived: the engine lets it grow to 48 MB under load and gives it back late, if ever.
 * Whoever starts the next worker takes the flags over.
 */
const FLAGS = ['--max-semi-space-size=2'];
/**
 * For glibc's allocator: buffers of a megabyte go back to the system when they are freed, and threads share two heaps.
 * Left alone it keeps up to three times the largest that it has seen, and a heap for each thread.
 */
const ALLOCATOR = {
  MALLOC_MMAP_THRESHOLD_: '1048576',
  MALLOC_TRIM_THRESHOLD_: '1048576',
  MALLOC_ARENA_MAX: '2',
};
/** Milliseconds for a worker to answer, on a busy machine. */
const START_DEADLINE = 60_000;
/** Milliseconds for one to be back that another program starts. */
const SERVICE_DEADLINE = 20_000;
const RETRY_PAUSE = 10;

/**
 * Asks the worker that serves a state directory; it is started when there is none, and goes on when this process ends.
 * Nobody asks beforehand whether it is there: that would take as long as half of a mount's answer.
 *
 * @param ask sends one request; called again when nobody took it
 * @throws as `ask`; `unavailable` when the worker does not answer, naming its log; `permission-denied`
 */
export async function callWorker<T>(places: Places, ask: (worker: ControlClient) => Promise<T>): Promise<T> {
  const client = new ControlClient(places.api);
  try {
    return await ask(client);
  } catch (error) {
    if (!(error instanceof NobodyListens)) throw error;
  }
  if (existsSync(places.service)) await awaitService(places, client);
  else await startWorker(places, client, [], () => true);
  return ask(client);
}

/**
 * Has the worker that serves replaced by one of this version: its mounts go on, readers wait for some milliseconds.
 *
 * @returns the new worker's number
 * @throws `not-found` when none serves; `unavailable` when the new one does not answer; `permission-denied`
 */
export async function replaceWorker(places: Places): Promise<number> {
  const client = new ControlClient(places.api);
  const before = await servingPid(client);
  if (before === undefined) throw new PantalaError('not-found', `no worker serves on ${places.api}`);
  if (existsSync(places.service)) {
    throw new PantalaError(
      'failed-precondition',
      'this worker is a program of its own (pantala worker): end it with SIGUSR2, and have what starts it start the new version',
    );
  }
  return startWorker(places, client, ['--role', 'replacing'], (pid) => pid !== before);
}

/** A worker that somebody else starts, and that has ended for a moment. */
async function awaitService({ api }: Places, client: ControlClient): Promise<void> {
  for (const deadline = monotonicNow() + SERVICE_DEADLINE; monotonicNow() < deadline; await sleep(RETRY_PAUSE)) {
    if ((await servingPid(client)) !== undefined) return;
  }
  throw new PantalaError('unavailable', `no worker answers on ${api}: start "pantala worker" again`);
}

async function startWorker(
  places: Places,
  client: ControlClient,
  args: readonly string[],
  isExpected: (pid: number) => boolean,
): Promise<number> {
  try {
    mkdirSync(places.stateDirectory, { recursive: true, mode: 0o700 });
    mkdirSync(places.cacheDirectory, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw PantalaError.from(error);
  }
  const log = openSync(places.log, 'a', 0o600);
  const cache = getCompileCacheDir();
  const compiled = process.env.NODE_COMPILE_CACHE ?? (cache === undefined ? undefined : dirname(cache));
  const child = spawn(
    process.execPath,
    [...FLAGS, SCRIPT, '--state-dir', places.stateDirectory, '--cache-dir', places.cacheDirectory, ...args],
    {
      stdio: ['ignore', log, log],
      // Compiled once, worker and guardian start without the compiler of TypeScript: half of the time, 12 MB each.
      env: { ...ALLOCATOR, ...process.env, ...(compiled === undefined ? {} : { NODE_COMPILE_CACHE: compiled }) },
      cwd: '/',
      detached: true,
    },
  );
  child.unref();
  closeSync(log);
  let ended: string | undefined;
  child.once('error', (error) => {
    ended = error.message;
  });
  child.once('exit', (code, signal) => {
    ended = signal ?? `status ${code}`;
  });
  for (const deadline = monotonicNow() + START_DEADLINE; monotonicNow() < deadline; await sleep(RETRY_PAUSE)) {
    const hasEnded = ended !== undefined;
    const pid = await servingPid(client);
    if (pid !== undefined && isExpected(pid)) return pid;
    if (hasEnded) break;
  }
  throw new PantalaError(
    'unavailable',
    `the worker of lazy mounts does not answer${ended === undefined ? '' : ` (${ended})`}; see ${places.log}`,
  );
}

async function servingPid(client: ControlClient): Promise<number | undefined> {
  try {
    const { pid } = (await client.call('GET', '/pantala/v1/worker')) as { readonly pid: number };
    return pid;
  } catch (error) {
    if (PantalaError.from(error).code === 'unavailable') return undefined;
    throw error;
  }
}
