import { PantalaError } from '@pantala/base';
import type { LazyDriver } from '../driver.ts';
import { unmountErofs } from './erofs.ts';
import type { Mount } from './mount.ts';
import { placeMount, prepareMount } from './mount-creation.ts';
import { prefetchOrdered } from './mount-prefetch.ts';
import { type MountRecord, MountRecords } from './mount-record.ts';
import type { LazyMountsOptions, MountTable } from './mount-table.ts';

/** Of a mount that is lost, whatever holds back its readers. */
const NO_GENERATION = 'lost';

/** Mounts of the worker before this one: those that are protected are served on, the others mounted afresh. */
export async function recoverMounts(table: MountTable): Promise<void> {
  const { logger, driver: driverOf, generation } = table.options;
  const lost: MountRecord[] = [];
  const drivers = new Set<LazyDriver>();
  for (const record of table.records.all()) {
    const mount: Mount = { record, attached: [], image: undefined, opened: undefined, ended: new AbortController() };
    if (!table.isThere(record)) {
      logger.info('a mount is gone', { target: record.request.target });
      table.records.remove(record.id);
      await table.removeBootstrap(record.bootstrap);
    } else if (record.complete && record.driver === 'fanotify') {
      // Its pages come from whole files, whoever looks after them.
      table.add(mount);
    } else if (record.generation === generation) {
      const driver = await driverOf(record.driver);
      drivers.add(driver);
      await table.attach(mount, driver);
      table.add(mount);
    } else {
      lost.push(record);
    }
  }
  // What is left over of the last worker's time may be about any of them.
  for (const driver of drivers) driver.start();
  for (const record of lost) await mountAfresh(table, record);
  void openRecovered(table);
}

/** What protected it is gone: readers may have seen holes, and what they saw is in the kernel's memory. */
async function mountAfresh(table: MountTable, record: MountRecord): Promise<void> {
  const { logger } = table.options;
  const { target } = record.request;
  logger.error('a mount was lost: nobody held back its readers for a while; it is detached and mounted afresh', {
    target,
  });
  await unmountErofs(target, { detach: true });
  const bootstrap = table.bootstraps.path(record.bootstrap);
  try {
    const mount = await prepareMount(
      table,
      // It is checked as if it were new: it may have been changed since.
      { ...record.request, bootstrap, bootstrapDigest: record.bootstrap },
      { lostAt: Date.now(), ...(record.credentials === undefined ? {} : { credentials: record.credentials }) },
    );
    await placeMount(table, mount);
    table.update(mount, { request: record.request });
  } catch (error) {
    logger.error('a lost mount cannot be mounted afresh', { target, error });
  }
  table.records.remove(record.id);
  await table.removeBootstrap(record.bootstrap);
}

/** Opens what outlived the last worker; until then the cache evicts nothing. */
async function openRecovered(table: MountTable): Promise<void> {
  const { logger } = table.options;
  for (const mount of table.all()) {
    await table.imageOf(mount).catch((error: unknown) => {
      // Whoever reads tries again.
      logger.warn('an image cannot be opened', { target: mount.record.request.target, error });
    });
  }
  if (table.closing.aborted) return;
  await table.cache.allowEviction();
  for (const mount of table.all()) void prefetchOrdered(table, mount);
  await verifyRecovered(table).catch((error: unknown) => {
    if (!table.closing.aborted) logger.warn('what the last worker left could not be checked', { error });
  });
}

/**
 * Looks at cache files that somebody changed around the last worker's death. Where that was not the worker itself,
 * readers may have seen wrong bytes, and the kernel may have them in memory: these mounts are lost.
 */
async function verifyRecovered(table: MountTable): Promise<void> {
  const wrong = new Set(await table.cache.wrongBlobs(table.closing));
  if (wrong.size === 0) return;
  for (const mount of table.all()) {
    if (!mount.record.blobs.some(({ id }) => wrong.has(id))) continue;
    table.update(mount, { generation: NO_GENERATION, complete: false });
  }
  const names = [...wrong].join(', ');
  table.options.onFailure(
    new PantalaError('data-loss', `somebody changed the cache files of ${names}: their mounts are lost`),
  );
}

/** Blobs of mounts whose readers somebody has held back all the time. */
export function blobsInUse({ places, generation }: LazyMountsOptions): ReadonlySet<string> {
  const records = new MountRecords(places.records).all().filter((record) => record.generation === generation);
  return new Set(records.flatMap(({ blobs }) => blobs.map(({ id }) => id)));
}
