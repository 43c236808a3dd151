import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { PantalaError } from '@pantala/base';
import { callWorker, type DriverName, type MountAnswer, type MountOrder } from '@pantala/lazyfs/client';
import { note, print, printJson } from '../../output.ts';
import { mountSource, type SourceOptions } from './source.ts';
import { tracedMount } from './trace.ts';
import { placesFor, type WorkerOptions } from './worker.ts';

interface MountOptions extends WorkerOptions, SourceOptions {
  readonly bootstrapDigest?: string;
  readonly driver?: DriverName;
  readonly loop?: boolean;
  readonly prefetch: boolean;
  readonly prefetchFiles?: string;
  readonly trace?: boolean;
}

/** @param names an image and a directory, or with `--bootstrap` the directory alone */
export async function mount(names: readonly string[], options: MountOptions): Promise<number> {
  const [directory, image, ...others] = names.toReversed();
  if (directory === undefined || others.length > 0) {
    throw new PantalaError('invalid-argument', 'name an image and the directory where it is to be mounted');
  }
  if (image !== undefined && options.bootstrap !== undefined) {
    throw new PantalaError('invalid-argument', `name the image once: "${image}" or --bootstrap ${options.bootstrap}`);
  }
  const order: MountOrder = {
    ...mountSource(image, options),
    target: resolve(directory),
    ...(options.bootstrapDigest === undefined
      ? {}
      : { bootstrapDigest: options.bootstrapDigest.replace(/^sha256:/, '') }),
    ...(options.driver === undefined ? {} : { driver: options.driver }),
    ...(options.loop === undefined ? {} : { loop: options.loop }),
    // A trace names files.
    ...(options.trace === true ? { accounting: { files: true } } : {}),
    prefetch: {
      ...(options.prefetch ? {} : { enabled: false }),
      ...prefetchFiles(options.prefetchFiles),
    },
  };
  const show = ({ warnings, ...line }: MountAnswer): void => {
    for (const warning of warnings) note(warning);
    if (options.json === true) printJson(line);
    else print(`mounted ${line.mounted} (${line.driver})`);
  };
  await callWorker(placesFor(options), async (worker) => {
    if (options.trace === true) await tracedMount(worker, order, show, options.json === true);
    else show((await worker.call('POST', '/pantala/v1/mounts', order)) as MountAnswer);
  });
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
