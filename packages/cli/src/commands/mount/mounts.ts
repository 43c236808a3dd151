import { existsSync } from 'node:fs';
import { ControlClient, type MountLine, type MountState } from '@pantala/lazyfs';
import { print, printJson, table } from '../../output.ts';
import { placesFor, type WorkerOptions } from './worker.ts';

export async function mounts(options: WorkerOptions): Promise<number> {
  const { api } = placesFor(options);
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
