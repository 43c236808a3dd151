import { realpath } from 'node:fs/promises';
import { resolve } from 'node:path';
import { type Logger, type Metrics, PantalaError } from '@pantala/base';
import type { Credentials } from '@pantala/oci';
import type { BlobCache } from '../cache/index.ts';
import type { LazyBlob } from '../contract.ts';
import type { DriverName, LazyDriver, ServedBlob } from '../driver.ts';
import type { Places } from '../worker/places.ts';
import type { BootstrapBytes } from './bootstrap-bytes.ts';
import { BootstrapStore } from './bootstrap-store.ts';
import { mountedErofs } from './erofs.ts';
import type { Mount } from './mount.ts';
import { type MountRecord, MountRecords } from './mount-record.ts';
import type { MountRequest } from './mount-request.ts';
import { type OpenedImage, openImage } from './opened-image.ts';
import type { Capabilities } from './trial.ts';

export interface LazyMountsOptions {
  readonly places: Places;
  /** What this machine can do; tried when it is first wanted. */
  readonly capabilities: () => Promise<Capabilities>;
  /** The driver of that name, made when it is first wanted. */
  readonly driver: (name: DriverName) => Promise<LazyDriver>;
  /** Of the descriptors that the drivers use: a mount of another one has lost what protected it. */
  readonly generation: string;
  readonly logger: Logger;
  readonly metrics: Metrics;
  /** Called when this worker can serve no longer: the next one mounts afresh what was lost. */
  readonly onFailure: (error: PantalaError) => void;
}

/** The mounts that are there, each with its record, its bootstrap, its image and its driver's share in it. */
export class MountTable implements AsyncDisposable {
  readonly options: LazyMountsOptions;
  readonly cache: BlobCache;
  readonly records: MountRecords;
  readonly bootstraps: BootstrapStore;
  readonly #mounts = new Map<string, Mount>();
  readonly #closing = new AbortController();

  constructor(options: LazyMountsOptions, cache: BlobCache) {
    this.options = options;
    this.cache = cache;
    this.records = new MountRecords(options.places.records);
    this.bootstraps = new BootstrapStore(options.places.bootstraps);
  }

  /** Aborted when the worker ends. */
  get closing(): AbortSignal {
    return this.#closing.signal;
  }

  all(): Mount[] {
    return [...this.#mounts.values()];
  }

  has(target: string): boolean {
    return this.#mounts.has(target);
  }

  add(mount: Mount): void {
    this.#mounts.set(mount.record.request.target, mount);
  }

  delete(target: string): void {
    this.#mounts.delete(target);
  }

  /** @throws `not-found` */
  async find(target: string): Promise<Mount> {
    const path = await realpath(target).catch(() => resolve(target));
    const mount = this.#mounts.get(path);
    if (mount === undefined) throw new PantalaError('not-found', `${path} is no lazy mount of this worker`);
    return mount;
  }

  update(mount: Mount, changes: Partial<MountRecord>): void {
    mount.record = { ...mount.record, ...changes };
    this.records.save(mount.record);
  }

  /** Whether the kernel has it still. */
  isThere({ request, device }: MountRecord): boolean {
    return device !== '' && mountedErofs(request.target) === device;
  }

  /** @param bytes of the bootstrap, where they are known; they are given back */
  async open(
    bootstrap: string,
    request: MountRequest,
    credentials?: Credentials,
    bytes?: BootstrapBytes,
  ): Promise<OpenedImage> {
    const { logger, metrics } = this.options;
    const given = credentials === undefined ? {} : { credentials };
    const parts = { logger, metrics, signal: this.closing, ...given };
    return openImage(this.bootstraps.path(bootstrap), request, this.cache, parts, bytes);
  }

  /** The image of a mount, opened once; a failure is forgotten, so that the next reader tries again. */
  imageOf(mount: Mount): Promise<OpenedImage> {
    if (mount.image !== undefined) return mount.image;
    const { record } = mount;
    const opening = this.open(record.bootstrap, record.request, record.credentials);
    mount.image = opening;
    opening.then(
      async (image) => {
        mount.opened = image;
        this.watch(mount, image, await this.options.driver(record.driver));
      },
      () => {
        mount.image = undefined;
      },
    );
    return opening;
  }

  /** Has a driver hold back the readers of what a mount's blobs lack. */
  async attach(mount: Mount, driver: LazyDriver): Promise<void> {
    for (const [index, { id, path, size }] of mount.record.blobs.entries()) {
      const open = async (): Promise<LazyBlob> => {
        const blob = (await this.imageOf(mount)).blobs[index];
        if (blob?.id !== id) throw new PantalaError('data-loss', `blob ${id} is no longer the image's ${index}.`);
        return blob;
      };
      const served: ServedBlob = { id, path, size, open };
      mount.attached.push(await driver.attach(served));
    }
  }

  /** Takes the driver out of the way of what is complete. */
  watch(mount: Mount, image: OpenedImage, driver: LazyDriver): void {
    for (const blob of image.blobs) {
      driver.opened(blob);
      void blob.completed.then(() => driver.complete(blob.path));
    }
    void Promise.all(image.blobs.map(({ completed }) => completed)).then(() => this.#noteCompletion(mount));
  }

  #noteCompletion(mount: Mount): void {
    const { logger } = this.options;
    const { target } = mount.record.request;
    if (this.#mounts.get(target) !== mount || mount.record.complete) return;
    try {
      this.update(mount, { complete: true });
      logger.info('everything is here', { target });
    } catch (error) {
      // The next worker finds it out by itself.
      logger.warn('everything is here, and it cannot be recorded', { target, error });
    }
  }

  /** Lets go of what was attached and opened for a mount. */
  async release(mount: Mount): Promise<void> {
    mount.ended.abort(new PantalaError('cancelled', 'it is no longer mounted'));
    for (const attached of mount.attached.splice(0)) await attached[Symbol.asyncDispose]();
    const image = await mount.image?.catch(() => undefined);
    await image?.[Symbol.asyncDispose]();
  }

  /** Removes a bootstrap that no mount has any more. */
  async removeBootstrap(digest: string): Promise<void> {
    if (this.all().some(({ record }) => record.bootstrap === digest)) return;
    await this.bootstraps.remove(digest);
  }

  /** Begins the worker's end: nothing is opened any more. */
  close(): void {
    this.#closing.abort(new PantalaError('cancelled', 'the worker ends'));
  }

  /** Gives everything back; mounts stay as they are. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const mount of this.#mounts.values()) {
      mount.ended.abort(new PantalaError('cancelled', 'the worker ends'));
      const image = await mount.image?.catch(() => undefined);
      await image?.[Symbol.asyncDispose]();
    }
    await this.cache[Symbol.asyncDispose]();
  }
}
