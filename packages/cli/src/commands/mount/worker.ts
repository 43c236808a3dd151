import { resolve } from 'node:path';
import { DEFAULT_CACHE_DIRECTORY, DEFAULT_STATE_DIRECTORY, type Places, placesOf } from '@pantala/lazyfs/client';
import type { CommonOptions } from '../../output.ts';

export interface WorkerOptions extends CommonOptions {
  readonly stateDir?: string;
  readonly cacheDir?: string;
}

export function placesFor({ stateDir, cacheDir }: WorkerOptions): Places {
  return placesOf(resolve(stateDir ?? DEFAULT_STATE_DIRECTORY), resolve(cacheDir ?? DEFAULT_CACHE_DIRECTORY));
}
