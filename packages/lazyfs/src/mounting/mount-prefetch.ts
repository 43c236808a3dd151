import { AbortScope, byteStringOf, PantalaError, shown } from '@pantala/base';
import { planPrefetch, prefetch } from '../prefetch/index.ts';
import type { Mount } from './mount.ts';
import type { PrefetchSettings } from './mount-request.ts';
import type { MountTable } from './mount-table.ts';

/** Fetches what was ordered at the mount, behind every reader. */
export async function prefetchOrdered(table: MountTable, mount: Mount): Promise<void> {
  const { logger } = table.options;
  const { target, prefetch: settings = {} } = mount.record.request;
  if (mount.record.complete || settings.enabled === false) return;
  try {
    const { plan, blobs } = await table.imageOf(mount);
    const { all = true, lanes } = settings;
    for (const missing of plan.missing) logger.warn('the image has no such file', { target, file: shown(missing) });
    const options = { all, logger, signal: mount.ended.signal, ...(lanes === undefined ? {} : { lanes }) };
    const { broken } = await prefetch(plan, blobs, options);
    logger.info('prefetching is done', { target, broken });
  } catch (error) {
    if (!mount.ended.signal.aborted) logger.warn('prefetching ended', { target, error });
  }
}

/** As `LazyMounts.prefetch`. */
export async function prefetchNow(
  table: MountTable,
  target: string,
  settings: PrefetchSettings,
  signal: AbortSignal,
): Promise<{ readonly broken: number }> {
  const mount = await table.find(target);
  const image = await table.imageOf(mount);
  const plan = planPrefetch(await image.tree(), (settings.files ?? []).map(byteStringOf));
  const [missing] = plan.missing;
  if (missing !== undefined) throw new PantalaError('not-found', `the image has no ${shown(missing)}`);
  using scope = new AbortScope([signal, mount.ended.signal]);
  const { all = true, lanes } = settings;
  const options = { all, logger: table.options.logger, signal: scope.signal };
  return prefetch(plan, image.blobs, { ...options, ...(lanes === undefined ? {} : { lanes }) });
}
