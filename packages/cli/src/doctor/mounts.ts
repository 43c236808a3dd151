import { existsSync } from 'node:fs';
import { dirname } from 'node:path';
import { PantalaError } from '@pantala/base';
import { type Capabilities, ControlClient, type Places, tryDrivers } from '@pantala/lazyfs';
import { mountSelfTest } from '@pantala/linux';
import { type Check, good, remark } from './check.ts';

/** What this machine can do for lazy mounts: the calls, the driver that works on the cache's file system, the guardian. */
export async function checkMounts(places: Places): Promise<Check[]> {
  const place = existing(places.cacheDirectory);
  try {
    const calls = (await mountSelfTest(place)).map(({ call, use, works, reason }) =>
      works ? good(call, `works: ${use}`) : remark(call, reason ?? 'does not work', use),
    );
    return [...calls, await checkDriver(places, place), await checkWorker(places)];
  } catch (error) {
    return [
      remark('lazy mounts', PantalaError.from(error).message, 'they need root, and a cache directory to write to'),
    ];
  }
}

async function checkDriver({ api }: Places, place: string): Promise<Check> {
  try {
    // The worker knows of a guardian of the host.
    const asked = await new ControlClient(api).call('GET', '/pantala/v1/capabilities').catch(() => undefined);
    const { driver, loop, reason } = (asked as Capabilities | undefined) ?? (await tryDrivers(place));
    const found = `${driver}${loop ? ' with loop devices' : ''}: ${reason}`;
    return driver === 'fanotify'
      ? good('driver of lazy mounts', found)
      : remark('driver of lazy mounts', found, 'for the faster one: Linux 6.15, and the cache on ext4, xfs or btrfs');
  } catch (error) {
    return remark('driver of lazy mounts', PantalaError.from(error).message, 'lazy mounts do not work here');
  }
}

async function checkWorker({ api }: Places): Promise<Check> {
  const name = 'worker of lazy mounts';
  const serves = (await new ControlClient(api).call('GET', '/pantala/v1/worker').catch(() => undefined)) as
    | { pid: number; guardian: number; spared: boolean; hostGuardian?: string }
    | undefined;
  if (serves === undefined) return good(name, `none serves on ${api}; pantala mount starts one`);
  const { pid, guardian, spared, hostGuardian } = serves;
  if (guardian === 0 && hostGuardian !== undefined) {
    const missing = `process ${pid}, and no guardian on ${hostGuardian}`;
    return remark(name, missing, 'start "pantala guardian" on the host: until then no mount outlives the worker');
  }
  const found = `process ${pid}, guardian ${guardian === 0 ? 'not needed yet' : guardian}`;
  return spared || guardian === 0
    ? good(name, found)
    : remark(
        name,
        `${found}, which the OOM killer may take`,
        'give the worker CAP_SYS_RESOURCE; until then it offers itself first',
      );
}

function existing(directory: string): string {
  return existsSync(directory) ? directory : existing(dirname(directory));
}
