import { resolve } from 'node:path';
import { ControlClient } from '@pantala/lazyfs/client';
import { print, printJson } from '../../output.ts';
import { placesFor, type WorkerOptions } from './worker.ts';

interface UmountOptions extends WorkerOptions {
  readonly lazy?: boolean;
}

export async function umount(directory: string, options: UmountOptions): Promise<number> {
  const target = resolve(directory);
  const query = new URLSearchParams({ target, lazy: String(options.lazy === true) });
  await new ControlClient(placesFor(options).api).call('DELETE', `/pantala/v1/mounts?${query.toString()}`);
  if (options.json === true) printJson({ unmounted: target });
  else print(`unmounted ${target}`);
  return 0;
}
