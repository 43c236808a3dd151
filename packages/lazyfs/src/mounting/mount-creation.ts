import { randomUUID } from 'node:crypto';
import { PantalaError, shown } from '@pantala/base';
import { mountErofs, mountedErofs } from './erofs.ts';
import { mixedUpFile } from './loop-safety.ts';
import type { Mount } from './mount.ts';
import type { MountRecord } from './mount-record.ts';
import type { MountRequest } from './mount-request.ts';
import type { MountTable } from './mount-table.ts';
import type { OpenedImage } from './opened-image.ts';

/** What a mount takes over from the one that it stands for. */
export type Inheritance = Pick<MountRecord, 'lostAt' | 'credentials'>;

/** Everything for a mount but the mount itself. @throws as `LazyMounts.mount` */
export async function prepareMount(table: MountTable, request: MountRequest, before: Inheritance = {}): Promise<Mount> {
  const { capabilities, driver: driverOf, generation } = table.options;
  const found = await capabilities();
  const name = request.driver ?? (request.loop === true ? 'fuse' : found.driver);
  const loop = request.loop ?? found.loop;
  if (name === 'fanotify' && loop) {
    throw new PantalaError(
      'invalid-argument',
      'the fanotify driver cannot fill what is read through loop devices: the kernel asks nobody before these reads',
    );
  }
  const { digest: bootstrap, bytes } = await table.bootstraps.add(request.bootstrap, request.bootstrapDigest);
  const image = await table.open(bootstrap, request, before.credentials, bytes);
  const driver = await driverOf(name);
  const mount: Mount = {
    record: {
      id: randomUUID(),
      request,
      bootstrap,
      blobs: image.blobs.map(({ id, path, size }) => ({ id, path, size })),
      driver: name,
      loop,
      generation,
      device: '',
      complete: image.blobs.every((blob) => blob.complete),
      mountedAt: Date.now(),
      ...before,
    },
    attached: [],
    image: Promise.resolve(image),
    opened: image,
    ended: new AbortController(),
  };
  try {
    if (loop) await refuseMixUps(image);
    await table.attach(mount, driver);
    driver.start();
  } catch (error) {
    await giveUpMount(table, mount);
    throw error;
  }
  return mount;
}

/** @throws `failed-precondition` for an image that the kernel would read wrong through loop devices */
async function refuseMixUps(image: OpenedImage): Promise<void> {
  if (image.blobs.length < 2) return;
  const path = mixedUpFile(await image.tree());
  if (path === undefined) return;
  throw new PantalaError(
    'failed-precondition',
    `${shown(path)} has neighbouring chunks in two blobs, which Linux mixes up through loop devices: mount it where EROFS is mounted from files (Linux 6.12), or convert the image without sharing chunks between layers`,
  );
}

/** Has the kernel mount what was prepared; gives it up when it does not. */
export async function placeMount(table: MountTable, mount: Mount): Promise<void> {
  const { record, attached, opened } = mount;
  const { target } = record.request;
  const { bootstrap, driver, loop, blobs } = record;
  try {
    // Recorded before it is there: whoever finds the record without the mount drops it.
    table.records.save(record);
    // What needs nobody is attached nowhere.
    const devices = attached.length === 0 ? blobs.map(({ path }) => path) : attached.map(({ device }) => device);
    await mountErofs({ bootstrap: table.bootstraps.path(bootstrap), devices, target, loop });
  } catch (error) {
    table.records.remove(record.id);
    await giveUpMount(table, mount);
    throw error;
  }
  table.update(mount, { device: mountedErofs(target) ?? '' });
  table.add(mount);
  if (opened !== undefined) table.watch(mount, opened, await table.options.driver(driver));
  table.options.logger.info('mounted', { target, driver, loop, blobs: blobs.length });
}

/** Gives back what was prepared for a mount that does not come to be. */
export async function giveUpMount(table: MountTable, mount: Mount): Promise<void> {
  await table.release(mount);
  await table.removeBootstrap(mount.record.bootstrap);
}
