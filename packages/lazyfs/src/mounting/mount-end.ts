import { unmountErofs } from './erofs.ts';
import type { Mount } from './mount.ts';
import type { MountTable } from './mount-table.ts';

/**
 * Makes a mount need no worker: takes it away when nobody uses it, else fetches the rest of it.
 *
 * @returns whether it needs none now
 */
export async function letGoOf(table: MountTable, mount: Mount, signal: AbortSignal): Promise<boolean> {
  const { logger } = table.options;
  const { record } = mount;
  const { target } = record.request;
  if (record.complete && record.driver === 'fanotify') return true;
  try {
    if (table.isThere(record)) await unmountErofs(target, { detach: false });
    table.delete(target);
    table.records.remove(record.id);
    await table.release(mount);
    return true;
  } catch (error) {
    logger.warn('a mount is in use and is completed first', { target, error });
  }
  // What comes through FUSE does so for ever.
  if (record.driver === 'fuse') return false;
  try {
    const { blobs } = await table.imageOf(mount);
    await Promise.all(blobs.map((blob) => blob.ensure({ start: 0, end: blob.size }, { urgency: 'prefetch', signal })));
    table.update(mount, { complete: true });
    return true;
  } catch (error) {
    logger.error('a mount cannot be completed', { target, error });
    return false;
  }
}
