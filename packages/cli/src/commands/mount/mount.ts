import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { PantalaError } from '@pantala/base';
import { type DriverName, type MountLine, type MountRequest, reachWorker } from '@pantala/lazyfs';
import { print, printJson } from '../../output.ts';
import { placesFor, type WorkerOptions } from './worker.ts';

interface MountOptions extends WorkerOptions {
  readonly bootstrap: string;
  readonly bootstrapDigest?: string;
  readonly blobDir: readonly string[];
  readonly driver?: DriverName;
  readonly loop?: boolean;
  readonly prefetch: boolean;
  readonly prefetchFiles?: string;
}

export async function mount(directory: string, options: MountOptions): Promise<number> {
  if (options.blobDir.length === 0) {
    throw new PantalaError('invalid-argument', 'where are the blobs? Name their folder with --blob-dir');
  }
  const request: MountRequest = {
    target: resolve(directory),
    bootstrap: resolve(options.bootstrap),
    ...(options.bootstrapDigest === undefined
      ? {}
      : { bootstrapDigest: options.bootstrapDigest.replace(/^sha256:/, '') }),
    sources: { kind: 'local', local: { directories: options.blobDir.map((each) => resolve(each)) } },
    ...(options.driver === undefined ? {} : { driver: options.driver }),
    ...(options.loop === undefined ? {} : { loop: options.loop }),
    prefetch: { enabled: options.prefetch, ...prefetchFiles(options.prefetchFiles) },
  };
  const worker = await reachWorker(placesFor(options));
  const line = (await worker.call('POST', '/pantala/v1/mounts', request)) as MountLine;
  if (options.json === true) printJson(line);
  else print(`mounted ${line.mounted} (${line.driver})`);
  return 0;
}

/** Paths of a file, a line each. */
export function prefetchFiles(path: string | undefined): { readonly files?: readonly string[] } {
  if (path === undefined) return {};
  try {
    return {
      files: readFileSync(path, 'utf8')
        .split('\n')
        .filter((line) => line !== ''),
    };
  } catch (error) {
    throw PantalaError.from(error);
  }
}
