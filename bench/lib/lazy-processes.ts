import { readdirSync, readFileSync } from 'node:fs';
import { until, usageOf } from '@pantala/testkit';

/** Milliseconds in which nothing may have changed. */
const IDLE = 1000;

/** Bytes of anonymous memory of the processes behind some lazy mounts. */
export interface LazyMemory {
  readonly worker: number;
  readonly guardian: number;
  /** The worker that waits to take over. */
  readonly standby: number;
}

/** Looks when the processes have been idle for a while: what a garbage collector still gives back counts for nobody. */
export async function idleMemory(workerPid: number, guardianPid: number, stateDirectory: string): Promise<LazyMemory> {
  const pids = await untilIdle(workerPid, guardianPid, stateDirectory);
  const [worker, guardian, standby] = pids.map((pid) => usageOf(pid)?.rssAnon ?? 0) as [number, number, number];
  return { worker, guardian, standby };
}

/**
 * Resolves when everything of a service has started and rests, as it does on a node most of the time.
 *
 * @returns the processes: worker, guardian, and the worker that waits to take over
 */
export async function untilIdle(workerPid: number, guardianPid: number, stateDirectory: string): Promise<number[]> {
  const standbyPid = await until(() => standbyOf(stateDirectory), { what: 'another worker is ready to take over' });
  const pids = [workerPid, guardianPid, standbyPid];
  const used = () => pids.map((pid) => usageOf(pid)?.cpuSeconds ?? 0).reduce((a, b) => a + b, 0);
  let [before, since] = [used(), performance.now()];
  await until(
    () => {
      const now = used();
      if (now - before > 0.01) [before, since] = [now, performance.now()];
      return performance.now() - since > IDLE;
    },
    { what: 'the processes are idle' },
  );
  return pids;
}

function standbyOf(stateDirectory: string): number | undefined {
  return readdirSync('/proc')
    .map(Number)
    .find((pid) => {
      const args = argumentsOf(pid);
      return args.includes(stateDirectory) && args.includes('standby');
    });
}

function argumentsOf(pid: number): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0');
  } catch {
    return [];
  }
}
