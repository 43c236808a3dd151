import { isComplete, mountPlan } from '@pantala/convert';
import { printJson } from '../../output.ts';
import { type ImageInputOptions, openImage } from './input.ts';

interface MountPlanOptions extends ImageInputOptions {
  readonly cacheDir: string;
}

export async function planMount(argument: string | undefined, options: MountPlanOptions): Promise<number> {
  await using opened = await openImage(argument, options);
  const plan = mountPlan(opened.bootstrap.image, opened.bootstrap.path, options.cacheDir);
  const devices = await Promise.all(
    plan.devices.map(async (device) => ({ ...device, complete: await isComplete(device.cacheFile, device.size) })),
  );
  printJson({ ...plan, devices });
  return 0;
}
