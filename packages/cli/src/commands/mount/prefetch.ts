import { resolve } from 'node:path';
import { ERROR_SURFACES } from '@pantala/base';
import { ControlClient } from '@pantala/lazyfs/client';
import { note, print, printJson } from '../../output.ts';
import { prefetchFiles } from './mount.ts';
import { placesFor, type WorkerOptions } from './worker.ts';

interface PrefetchOptions extends WorkerOptions {
  readonly prefetchFiles?: string;
  readonly onlyFiles?: boolean;
}

/** Exit status of wrong bytes when a part of the image cannot be had. */
export async function prefetch(directory: string, options: PrefetchOptions): Promise<number> {
  const target = resolve(directory);
  const query = new URLSearchParams({ target }).toString();
  const settings = { all: options.onlyFiles !== true, ...prefetchFiles(options.prefetchFiles) };
  const client = new ControlClient(placesFor(options).api);
  const { broken } = (await client.call('POST', `/pantala/v1/prefetch?${query}`, settings)) as { broken: number };
  if (options.json === true) printJson({ prefetched: target, broken });
  else if (broken === 0) print(`fetched ${target}`);
  if (broken > 0) note(`${broken} parts of the image have wrong bytes wherever they come from`);
  return broken === 0 ? 0 : ERROR_SURFACES['data-loss'].exit;
}
