import { mkdir, stat } from 'node:fs/promises';
import { PantalaError } from '@pantala/base';
import {
  attachLoopDevice,
  LinuxError,
  type LoopDevice,
  MOUNT_ATTRIBUTES,
  mountFileSystem,
  mountTable,
  unmount,
} from '@pantala/linux';

export interface ErofsMount {
  /** File with the metadata: a RAFS v6 bootstrap, or any EROFS image. */
  readonly bootstrap: string;
  /** A file for each entry of the image's device table, in its order, at least as long as the entry says. */
  readonly devices: readonly string[];
  readonly target: string;
  /** Through loop devices, for kernels that cannot mount EROFS from a file (before Linux 6.12). */
  readonly loop: boolean;
}

/**
 * Mounts an image read only. Programs in it may run; device files and set-user-id bits work as in any image.
 *
 * @throws `not-found`; LinuxError: ENOTBLK where loop devices are needed, EINVAL when the image is none
 */
export async function mountErofs({ bootstrap, devices, target, loop }: ErofsMount): Promise<void> {
  await mkdir(target, { recursive: true });
  await using loops = new AsyncDisposableStack();
  const through = async (file: string): Promise<string> => {
    if (!loop) return file;
    const device: LoopDevice = loops.use(await attachLoopDevice(file));
    return device.path;
  };
  const parameters: [string, string | true][] = [
    ['source', await through(bootstrap)],
    ['ro', true],
  ];
  for (const device of devices) parameters.push(['device', await through(device)]);
  await mountFileSystem({ type: 'erofs', parameters, attributes: MOUNT_ATTRIBUTES.readOnly, target });
}

/** Identifies a mounted file system: `major:minor`; undefined when nothing of ours is mounted there. */
export function mountedErofs(target: string): string | undefined {
  // The last one hides those before it.
  return mountTable().findLast((entry) => entry.target === target && entry.type === 'erofs')?.device;
}

/** Whether a bootstrap of a directory is mounted anywhere, other than through a loop device. */
export function isMountedFrom(directory: string): boolean {
  return mountTable().some(({ type, source }) => type === 'erofs' && source.startsWith(`${directory}/`));
}

/**
 * Takes a mount away.
 *
 * @throws `failed-precondition` while it is in use; LinuxError
 */
export async function unmountErofs(target: string, options: { readonly detach: boolean }): Promise<void> {
  try {
    await unmount(target, options);
  } catch (error) {
    if (!(error instanceof LinuxError) || error.errno.name !== 'EBUSY') throw error;
    throw new PantalaError(
      'failed-precondition',
      `${target} is in use: end what runs in it (fuser -vm ${target}), or unmount with --lazy`,
      { cause: error },
    );
  }
}

/** Whether this kernel needs loop devices to mount EROFS. @param bootstrap of any image */
export function needsLoop(error: unknown): boolean {
  return error instanceof LinuxError && error.errno.name === 'ENOTBLK';
}

/** @throws `not-found` naming the file and what it is for */
export async function requireFile(path: string, purpose: string): Promise<void> {
  const found = await stat(path).catch(() => undefined);
  if (found?.isFile() !== true) throw new PantalaError('not-found', `${purpose}: there is no file ${path}`);
}
