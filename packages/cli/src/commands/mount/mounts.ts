import { existsSync } from 'node:fs';
import { ControlClient, type MountLine, type MountState, replaceWorker } from '@pantala/lazyfs/client';
import { print, printJson, table } from '../../output.ts';
import { placesFor, type WorkerOptions } from './worker.ts';

interface MountsOptions extends WorkerOptions {
  readonly upgrade?: boolean;
}

export async function mounts(options: MountsOptions): Promise<number> {
  const places = placesFor(options);
  const { api } = places;
  if (options.upgrade === true) await replaceWorker(places);
  // Where there never was a worker there are no mounts.
  const list = existsSync(api)
    ? ((await new ControlClient(api).call('GET', '/pantala/v1/mounts')) as (MountLine & MountState)[])
    : [];
  if (options.json === true) {
    printJson(
      list.map(({ mounted, driver, workerPid, guardianPid, api: socket }) => ({
        mounted,
        driver,
        workerPid,
        guardianPid,
        api: socket,
      })),
    );
    return 0;
  }
  const rows = list.map(({ mounted, driver, complete, loop, lostAt }) => [
    mounted,
    loop ? `${driver}, loop devices` : driver,
    complete ? 'complete' : 'lazy',
    lostAt === undefined ? '' : `lost and mounted afresh ${new Date(lostAt).toISOString()}`,
  ]);
  print(table([['MOUNTED', 'DRIVER', 'STATE', ''], ...rows]));
  return 0;
}
