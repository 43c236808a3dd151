import { resolve } from 'node:path';
import { DEFAULT_CACHE_DIRECTORY, DEFAULT_STATE_DIRECTORY, type Places, placesOf } from '@pantala/lazyfs/client';
import type { CommonOptions } from '../../output.ts';

export interface WorkerOptions extends CommonOptions {
  readonly stateDir?: string;
  readonly cacheDir?: string;
}

/** @param guardian socket of a guardian of the host */
export function placesFor({ stateDir, cacheDir }: WorkerOptions, guardian?: string): Places {
  const directories = [stateDir ?? DEFAULT_STATE_DIRECTORY, cacheDir ?? DEFAULT_CACHE_DIRECTORY] as const;
  return placesOf(
    resolve(directories[0]),
    resolve(directories[1]),
    guardian === undefined ? undefined : resolve(guardian),
  );
}
