import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { sha256Hex } from '@pantala/base';
import { isComplete, makeFolder, mountPlan } from '@pantala/convert';
import { printJson } from '../../output.ts';
import { type ImageInputOptions, type OpenedImage, openImage } from './input.ts';

interface MountPlanOptions extends ImageInputOptions {
  readonly cacheDir: string;
}

export async function planMount(argument: string | undefined, options: MountPlanOptions): Promise<number> {
  await using opened = await openImage(argument, options);
  const plan = mountPlan(opened.image, await bootstrapPath(opened, options.cacheDir), options.cacheDir);
  const devices = await Promise.all(
    plan.devices.map(async (device) => ({ ...device, complete: await isComplete(device.cacheFile, device.size) })),
  );
  printJson({ ...plan, devices });
  return 0;
}

/** The bootstrap's own file; one that came out of a layer or a blob is written beside the decoded blobs. */
async function bootstrapPath({ path, bytes, isInlined }: OpenedImage, directory: string): Promise<string> {
  if (path !== undefined && !isInlined) return path;
  await makeFolder(directory);
  const written = join(directory, `${sha256Hex(bytes)}.boot`);
  await writeFile(written, bytes);
  return written;
}
