import { mkdir, realpath } from 'node:fs/promises';
import { resolve } from 'node:path';
import { PantalaError } from '@pantala/base';
import type { Credentials } from '@pantala/oci';
import { BlobCache } from '../cache/index.ts';
import { isMountedFrom, unmountErofs } from './erofs.ts';
import { type MountState, type MountView, stateOf } from './mount.ts';
import { giveUpMount, placeMount, prepareMount } from './mount-creation.ts';
import { letGoOf } from './mount-end.ts';
import { prefetchNow, prefetchOrdered } from './mount-prefetch.ts';
import { blobsInUse, recoverMounts } from './mount-recovery.ts';
import type { MountRequest, PrefetchSettings } from './mount-request.ts';
import { type LazyMountsOptions, MountTable } from './mount-table.ts';
import { rehearseReading } from './rehearsal.ts';

/** All lazy mounts of a state directory. */
export class LazyMounts implements AsyncDisposable {
  readonly #table: MountTable;
  /** Mounting and unmounting never overlap. */
  #turn: Promise<unknown> = Promise.resolve();
  #hasRehearsed = false;

  private constructor(table: MountTable) {
    this.#table = table;
  }

  /** Takes up the mounts that another worker made. @throws as `BlobCache.open` */
  static async open(options: LazyMountsOptions): Promise<LazyMounts> {
    const { logger, metrics, places } = options;
    const cache = await BlobCache.open({ directory: places.blobs, inUse: blobsInUse(options) }, { logger, metrics });
    const table = new MountTable(options, cache);
    await recoverMounts(table);
    return new LazyMounts(table);
  }

  get cache(): BlobCache {
    return this.#table.cache;
  }

  /** Whether the kernel has any of them still, or of mounts whose records were lost. */
  get isAnyThere(): boolean {
    const table = this.#table;
    return table.all().some(({ record }) => table.isThere(record)) || isMountedFrom(table.options.places.bootstraps);
  }

  list(): MountState[] {
    return this.#table.all().map(stateOf);
  }

  views(): MountView[] {
    return this.#table.all().map(({ record, opened }) => ({
      request: record.request,
      mountedAt: record.mountedAt,
      image: opened,
    }));
  }

  /** Credentials for what a mount fetches from here on, by this worker and those after it. @throws `not-found` */
  async setCredentials(target: string, credentials: Credentials): Promise<void> {
    const mount = await this.#table.find(target);
    this.#table.update(mount, { credentials });
    // What is being opened has read the record already.
    void mount.image?.then(
      (image) => image.setCredentials(credentials),
      () => {},
    );
  }

  /**
   * Mounts an image; resolves when it can be read.
   *
   * @throws `invalid-argument`, `already-exists` when the image is mounted there, `data-loss` for a bootstrap that is
   *   none, LinuxError
   */
  mount(given: MountRequest): Promise<MountState> {
    return this.#inTurn(async () => {
      await mkdir(given.target, { recursive: true });
      const request = { ...given, target: await realpath(resolve(given.target)) };
      if (this.#table.has(request.target)) {
        throw new PantalaError('already-exists', `${request.target} has a lazy mount; pantala umount it first`);
      }
      const mount = await prepareMount(this.#table, request);
      await placeMount(this.#table, mount);
      void prefetchOrdered(this.#table, mount);
      this.#rehearse();
      return stateOf(mount);
    });
  }

  /**
   * Takes a mount away. What it has cached stays.
   *
   * @param options.detach: also one that is in use: whoever uses it goes on, until the worker ends
   * @throws `not-found`, `failed-precondition` while it is in use
   */
  unmount(target: string, options: { readonly detach: boolean }): Promise<void> {
    const table = this.#table;
    return this.#inTurn(async () => {
      const mount = await table.find(target);
      const path = mount.record.request.target;
      if (table.isThere(mount.record)) await unmountErofs(path, options);
      table.delete(path);
      table.records.remove(mount.record.id);
      if (!options.detach) await table.release(mount);
      await table.removeBootstrap(mount.record.bootstrap);
    });
  }

  /** Once: makes the next images, which may be large, be mounted as fast as this process ever will. */
  #rehearse(): void {
    if (this.#hasRehearsed) return;
    this.#hasRehearsed = true;
    const { cache, closing, options } = this.#table;
    rehearseReading((signal) => cache.quiet(signal), closing).catch((error: unknown) => {
      if (!closing.aborted) options.logger.warn('reading bootstraps is not rehearsed', { error });
    });
  }

  /**
   * Another image or other sources for a mount. What is there stays until all is ready for the new one, and comes back
   * when the kernel refuses that; between the two the directory is for some milliseconds what it is without a mount.
   *
   * @throws as `mount`; `not-found`, `failed-precondition` while it is in use
   */
  replace(given: MountRequest): Promise<MountState> {
    const table = this.#table;
    return this.#inTurn(async () => {
      const before = await table.find(given.target);
      const { target } = before.record.request;
      const next = await prepareMount(table, { ...given, target });
      try {
        if (table.isThere(before.record)) await unmountErofs(target, { detach: false });
      } catch (error) {
        await giveUpMount(table, next);
        throw error;
      }
      try {
        await placeMount(table, next);
      } catch (error) {
        await placeMount(table, before);
        throw error;
      }
      table.records.remove(before.record.id);
      await table.release(before);
      await table.removeBootstrap(before.record.bootstrap);
      void prefetchOrdered(table, next);
      return stateOf(next);
    });
  }

  /**
   * Fetches a mount's image now: what is named, then all of it when that is wanted.
   *
   * @returns ranges that no source has the right bytes of
   * @throws `not-found` for a directory that is no mount, or a file that the image does not have; the signal's reason
   */
  prefetch(target: string, settings: PrefetchSettings, signal: AbortSignal): Promise<{ readonly broken: number }> {
    return prefetchNow(this.#table, target, settings, signal);
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work, work);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  /**
   * Makes it safe to let go of what makes readers wait: takes away what nobody uses, and fetches the rest of what
   * somebody does. Mounts of the fanotify driver that are complete stay: they need nobody.
   *
   * @throws `failed-precondition` naming the mounts that are in use and cannot be completed
   */
  async stop(signal: AbortSignal): Promise<void> {
    await this.#inTurn(async () => {
      const kept: string[] = [];
      for (const mount of this.#table.all()) {
        if (!(await letGoOf(this.#table, mount, signal))) kept.push(mount.record.request.target);
      }
      if (kept.length === 0) return;
      throw new PantalaError(
        'failed-precondition',
        `${kept.join(', ')}: in use, and cannot do without a worker: end what uses it (fuser -vm), or unmount with --lazy`,
      );
    });
  }

  /** Gives everything back; mounts stay as they are. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#table.close();
    await this.#turn;
    await this.#table[Symbol.asyncDispose]();
  }
}
