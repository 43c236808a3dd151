import { randomUUID } from 'node:crypto';
import { mkdir, realpath } from 'node:fs/promises';
import { resolve } from 'node:path';
import { AbortScope, byteStringOf, type Logger, type Metrics, PantalaError, shown } from '@pantala/base';
import type { Credentials } from '@pantala/oci';
import { BlobCache } from '../cache/index.ts';
import type { LazyBlob } from '../contract.ts';
import type { AttachedBlob, DriverName, LazyDriver, ServedBlob } from '../driver.ts';
import { planPrefetch, prefetch } from '../prefetch/index.ts';
import type { Places } from '../worker/places.ts';
import type { BootstrapBytes } from './bootstrap-bytes.ts';
import { BootstrapStore } from './bootstrap-store.ts';
import { mountErofs, mountedErofs, unmountErofs } from './erofs.ts';
import { type MountRecord, MountRecords } from './mount-record.ts';
import type { MountRequest, PrefetchSettings } from './mount-request.ts';
import { type OpenedImage, openImage } from './opened-image.ts';
import { rehearseReading } from './rehearsal.ts';
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
}

/** A mount as it is shown. */
export interface MountState {
  readonly mounted: string;
  readonly driver: DriverName;
  readonly complete: boolean;
  readonly loop: boolean;
  readonly mountedAt: number;
  readonly lostAt: number | undefined;
}

/** A mount as the API looks into it. */
export interface MountView {
  readonly request: MountRequest;
  readonly mountedAt: number;
  /** Undefined while nobody has opened it. */
  readonly image: OpenedImage | undefined;
}

interface Mount {
  record: MountRecord;
  attached: AttachedBlob[];
  image: Promise<OpenedImage> | undefined;
  /** The same once it is there. */
  opened: OpenedImage | undefined;
  /** Ends what is fetched for it in the background. */
  readonly ended: AbortController;
}

/** All lazy mounts of a state directory. */
export class LazyMounts implements AsyncDisposable {
  readonly #options: LazyMountsOptions;
  readonly #cache: BlobCache;
  readonly #records: MountRecords;
  readonly #bootstraps: BootstrapStore;
  readonly #mounts = new Map<string, Mount>();
  /** Mounting and unmounting never overlap. */
  #turn: Promise<unknown> = Promise.resolve();
  readonly #closing = new AbortController();
  #hasRehearsed = false;

  private constructor(options: LazyMountsOptions, cache: BlobCache) {
    this.#options = options;
    this.#cache = cache;
    this.#records = new MountRecords(options.places.records);
    this.#bootstraps = new BootstrapStore(options.places.bootstraps);
  }

  /** Takes up the mounts that another worker made. @throws as `BlobCache.open` */
  static async open(options: LazyMountsOptions): Promise<LazyMounts> {
    const { logger, metrics, places } = options;
    const cache = await BlobCache.open({ directory: places.blobs, inUse: blobsInUse(options) }, { logger, metrics });
    const mounts = new LazyMounts(options, cache);
    await mounts.#resume();
    return mounts;
  }

  get cache(): BlobCache {
    return this.#cache;
  }

  list(): MountState[] {
    return [...this.#mounts.values()].map(({ record }) => stateOf(record));
  }

  views(): MountView[] {
    return [...this.#mounts.values()].map(({ record, opened }) => ({
      request: record.request,
      mountedAt: record.mountedAt,
      image: opened,
    }));
  }

  /** Credentials for what a mount fetches from here on, by this worker and those after it. @throws `not-found` */
  async setCredentials(target: string, credentials: Credentials): Promise<void> {
    const mount = await this.#find(target);
    this.#update(mount, { credentials });
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
      if (this.#mounts.has(request.target)) {
        throw new PantalaError('already-exists', `${request.target} has a lazy mount; pantala umount it first`);
      }
      const mount = await this.#mountNew(request);
      void this.#background(mount);
      this.#rehearse();
      return stateOf(mount.record);
    });
  }

  /**
   * Takes a mount away. What it has cached stays.
   *
   * @param options.detach: also one that is in use: whoever uses it goes on, until the worker ends
   * @throws `not-found`, `failed-precondition` while it is in use
   */
  unmount(target: string, options: { readonly detach: boolean }): Promise<void> {
    return this.#inTurn(async () => {
      const mount = await this.#find(target);
      const path = mount.record.request.target;
      if (mountedErofs(path) === mount.record.device) await unmountErofs(path, options);
      this.#mounts.delete(path);
      this.#records.remove(mount.record.id);
      if (!options.detach) await this.#release(mount);
      await this.#removeBootstrap(mount.record.bootstrap);
    });
  }

  /** Once: makes the next images, which may be large, be mounted as fast as this process ever will. */
  #rehearse(): void {
    if (this.#hasRehearsed) return;
    this.#hasRehearsed = true;
    rehearseReading((signal) => this.#cache.quiet(signal), this.#closing.signal).catch((error: unknown) => {
      if (!this.#closing.signal.aborted) this.#options.logger.warn('reading bootstraps is not rehearsed', { error });
    });
  }

  /**
   * Another image or other sources for a mount. What is there stays until all is ready for the new one, and comes back
   * when the kernel refuses that; between the two the directory is for some milliseconds what it is without a mount.
   *
   * @throws as `mount`; `not-found`, `failed-precondition` while it is in use
   */
  replace(given: MountRequest): Promise<MountState> {
    return this.#inTurn(async () => {
      const before = await this.#find(given.target);
      const { target } = before.record.request;
      const next = await this.#prepare({ ...given, target });
      try {
        if (mountedErofs(target) === before.record.device) await unmountErofs(target, { detach: false });
      } catch (error) {
        await this.#giveUp(next);
        throw error;
      }
      try {
        await this.#place(next);
      } catch (error) {
        await this.#place(before);
        throw error;
      }
      this.#records.remove(before.record.id);
      await this.#release(before);
      await this.#removeBootstrap(before.record.bootstrap);
      void this.#background(next);
      return stateOf(next.record);
    });
  }

  async #mountNew(request: MountRequest, before?: Pick<MountRecord, 'lostAt' | 'credentials'>): Promise<Mount> {
    const mount = await this.#prepare(request, before);
    await this.#place(mount);
    return mount;
  }

  /** Everything for a mount but the mount itself. */
  async #prepare(request: MountRequest, before: Pick<MountRecord, 'lostAt' | 'credentials'> = {}): Promise<Mount> {
    const { capabilities, driver: driverOf, generation } = this.#options;
    const found = await capabilities();
    const name = request.driver ?? (request.loop === true ? 'fuse' : found.driver);
    const loop = request.loop ?? found.loop;
    if (name === 'fanotify' && loop) {
      throw new PantalaError(
        'invalid-argument',
        'the fanotify driver cannot fill what is read through loop devices: the kernel asks nobody before these reads',
      );
    }
    const { digest: bootstrap, bytes } = await this.#bootstraps.add(request.bootstrap, request.bootstrapDigest);
    const image = await this.#open(bootstrap, request, before.credentials, bytes);
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
      await this.#attach(mount, driver);
      driver.start();
    } catch (error) {
      await this.#giveUp(mount);
      throw error;
    }
    return mount;
  }

  /** Has the kernel mount what was prepared; gives it up when it does not. */
  async #place(mount: Mount): Promise<void> {
    const { record, attached, opened } = mount;
    const { target } = record.request;
    const { bootstrap, driver, loop, blobs } = record;
    try {
      // Recorded before it is there: whoever finds the record without the mount drops it.
      this.#records.save(record);
      // What needs nobody is attached nowhere.
      const devices = attached.length === 0 ? blobs.map(({ path }) => path) : attached.map(({ device }) => device);
      await mountErofs({ bootstrap: this.#bootstraps.path(bootstrap), devices, target, loop });
    } catch (error) {
      this.#records.remove(record.id);
      await this.#giveUp(mount);
      throw error;
    }
    this.#update(mount, { device: mountedErofs(target) ?? '' });
    this.#mounts.set(target, mount);
    if (opened !== undefined) this.#watch(mount, opened, await this.#options.driver(driver));
    this.#options.logger.info('mounted', { target, driver, loop, blobs: blobs.length });
  }

  async #giveUp(mount: Mount): Promise<void> {
    await this.#release(mount);
    await this.#removeBootstrap(mount.record.bootstrap);
  }

  async #open(
    bootstrap: string,
    request: MountRequest,
    credentials?: Credentials,
    bytes?: BootstrapBytes,
  ): Promise<OpenedImage> {
    const { logger, metrics } = this.#options;
    const given = credentials === undefined ? {} : { credentials };
    const parts = { logger, metrics, signal: this.#closing.signal, ...given };
    return openImage(this.#bootstraps.path(bootstrap), request, this.#cache, parts, bytes);
  }

  /** The image of a mount, opened once; a failure is forgotten, so that the next reader tries again. */
  #imageOf(mount: Mount): Promise<OpenedImage> {
    if (mount.image !== undefined) return mount.image;
    const { record } = mount;
    const opening = this.#open(record.bootstrap, record.request, record.credentials);
    mount.image = opening;
    opening.then(
      async (image) => {
        mount.opened = image;
        const driver = await this.#options.driver(record.driver);
        this.#watch(mount, image, driver);
      },
      () => {
        mount.image = undefined;
      },
    );
    return opening;
  }

  async #attach(mount: Mount, driver: LazyDriver): Promise<void> {
    for (const [index, { id, path, size }] of mount.record.blobs.entries()) {
      const open = async (): Promise<LazyBlob> => {
        const blob = (await this.#imageOf(mount)).blobs[index];
        if (blob?.id !== id) throw new PantalaError('data-loss', `blob ${id} is no longer the image's ${index}.`);
        return blob;
      };
      const served: ServedBlob = { id, path, size, open };
      mount.attached.push(await driver.attach(served));
    }
  }

  /** Takes the driver out of the way of what is complete. */
  #watch(mount: Mount, image: OpenedImage, driver: LazyDriver): void {
    for (const blob of image.blobs) {
      driver.opened(blob);
      void blob.completed.then(() => driver.complete(blob.path));
    }
    void Promise.all(image.blobs.map(({ completed }) => completed)).then(() => {
      if (this.#mounts.get(mount.record.request.target) !== mount || mount.record.complete) return;
      this.#update(mount, { complete: true });
      this.#options.logger.info('everything is here', { target: mount.record.request.target });
    });
  }

  #update(mount: Mount, changes: Partial<MountRecord>): void {
    mount.record = { ...mount.record, ...changes };
    this.#records.save(mount.record);
  }

  /** Opens a mount's image if it is not open; whoever reads tries again after a failure. */
  async #tryToOpen(mount: Mount): Promise<void> {
    await this.#imageOf(mount).catch((error: unknown) => {
      this.#options.logger.warn('an image cannot be opened', { target: mount.record.request.target, error });
    });
  }

  /** Fetches what was ordered at the mount, behind every reader. */
  async #background(mount: Mount): Promise<void> {
    const { logger } = this.#options;
    const { target, prefetch: settings = {} } = mount.record.request;
    if (mount.record.complete || settings.enabled === false) return;
    try {
      const { plan, blobs } = await this.#imageOf(mount);
      const { all = true, lanes } = settings;
      for (const missing of plan.missing) logger.warn('the image has no such file', { target, file: shown(missing) });
      const options = { all, logger, signal: mount.ended.signal, ...(lanes === undefined ? {} : { lanes }) };
      const { broken } = await prefetch(plan, blobs, options);
      logger.info('prefetching is done', { target, broken });
    } catch (error) {
      if (!mount.ended.signal.aborted) logger.warn('prefetching ended', { target, error });
    }
  }

  /**
   * Fetches a mount's image now: what is named, then all of it when that is wanted.
   *
   * @returns ranges that no source has the right bytes of
   * @throws `not-found` for a directory that is no mount, or a file that the image does not have; the signal's reason
   */
  async prefetch(
    target: string,
    settings: PrefetchSettings,
    signal: AbortSignal,
  ): Promise<{ readonly broken: number }> {
    const mount = await this.#find(target);
    const image = await this.#imageOf(mount);
    const plan = planPrefetch(await image.tree(), (settings.files ?? []).map(byteStringOf));
    const [missing] = plan.missing;
    if (missing !== undefined) throw new PantalaError('not-found', `the image has no ${shown(missing)}`);
    using scope = new AbortScope([signal, mount.ended.signal]);
    const { all = true, lanes } = settings;
    const options = { all, logger: this.#options.logger, signal: scope.signal };
    return prefetch(plan, image.blobs, { ...options, ...(lanes === undefined ? {} : { lanes }) });
  }

  async #find(target: string): Promise<Mount> {
    const path = await realpath(target).catch(() => resolve(target));
    const mount = this.#mounts.get(path);
    if (mount === undefined) throw new PantalaError('not-found', `${path} is no lazy mount of this worker`);
    return mount;
  }

  async #release(mount: Mount): Promise<void> {
    mount.ended.abort(new PantalaError('cancelled', 'it is no longer mounted'));
    for (const attached of mount.attached.splice(0)) await attached[Symbol.asyncDispose]();
    const image = await mount.image?.catch(() => undefined);
    await image?.[Symbol.asyncDispose]();
  }

  async #removeBootstrap(digest: string): Promise<void> {
    if ([...this.#mounts.values()].some(({ record }) => record.bootstrap === digest)) return;
    await this.#bootstraps.remove(digest);
  }

  /** Mounts of the worker before this one: those that are protected are served on, the others mounted afresh. */
  async #resume(): Promise<void> {
    const { logger, driver: driverOf, generation } = this.#options;
    const lost: MountRecord[] = [];
    const drivers = new Set<LazyDriver>();
    for (const record of this.#records.all()) {
      const { target } = record.request;
      const isThere = record.device !== '' && mountedErofs(target) === record.device;
      const mount: Mount = { record, attached: [], image: undefined, opened: undefined, ended: new AbortController() };
      if (!isThere) {
        logger.info('a mount is gone', { target });
        this.#records.remove(record.id);
        await this.#removeBootstrap(record.bootstrap);
      } else if (record.complete && record.driver === 'fanotify') {
        // Its pages come from whole files, whoever looks after them.
        this.#mounts.set(target, mount);
      } else if (record.generation === generation) {
        const driver = await driverOf(record.driver);
        drivers.add(driver);
        await this.#attach(mount, driver);
        this.#mounts.set(target, mount);
      } else {
        lost.push(record);
      }
    }
    // What is left over of the last worker's time may be about any of them.
    for (const driver of drivers) driver.start();
    for (const record of lost) await this.#mountAfresh(record);
    void this.#openAll();
  }

  /** What protected it is gone: readers may have seen holes, and what they saw is in the kernel's memory. */
  async #mountAfresh(record: MountRecord): Promise<void> {
    const { logger } = this.#options;
    const { target } = record.request;
    logger.error('a mount was lost: nobody held back its readers for a while; it is detached and mounted afresh', {
      target,
    });
    await unmountErofs(target, { detach: true });
    const bootstrap = this.#bootstraps.path(record.bootstrap);
    try {
      const mount = await this.#mountNew(
        // It is checked as if it were new: it may have been changed since.
        { ...record.request, bootstrap, bootstrapDigest: record.bootstrap },
        { lostAt: Date.now(), ...(record.credentials === undefined ? {} : { credentials: record.credentials }) },
      );
      this.#update(mount, { request: record.request });
    } catch (error) {
      logger.error('a lost mount cannot be mounted afresh', { target, error });
    }
    this.#records.remove(record.id);
    await this.#removeBootstrap(record.bootstrap);
  }

  /** Opens what outlived the last worker; until then the cache evicts nothing. */
  async #openAll(): Promise<void> {
    for (const mount of this.#mounts.values()) await this.#tryToOpen(mount);
    if (this.#closing.signal.aborted) return;
    await this.#cache.allowEviction();
    for (const mount of this.#mounts.values()) void this.#background(mount);
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
      for (const mount of this.#mounts.values()) {
        if (!(await this.#letGo(mount, signal))) kept.push(mount.record.request.target);
      }
      if (kept.length === 0) return;
      throw new PantalaError(
        'failed-precondition',
        `${kept.join(', ')}: in use, and cannot do without a worker: end what uses it (fuser -vm), or unmount with --lazy`,
      );
    });
  }

  /** Whether a mount no longer needs a worker. */
  async #letGo(mount: Mount, signal: AbortSignal): Promise<boolean> {
    const { record } = mount;
    const { target } = record.request;
    if (record.complete && record.driver === 'fanotify') return true;
    try {
      if (mountedErofs(target) === record.device) await unmountErofs(target, { detach: false });
      this.#mounts.delete(target);
      this.#records.remove(record.id);
      await this.#release(mount);
      return true;
    } catch (error) {
      this.#options.logger.warn('a mount is in use and is completed first', { target, error });
    }
    // What comes through FUSE does so for ever.
    if (record.driver === 'fuse') return false;
    try {
      const { blobs } = await this.#imageOf(mount);
      await Promise.all(
        blobs.map((blob) => blob.ensure({ start: 0, end: blob.size }, { urgency: 'prefetch', signal })),
      );
      this.#update(mount, { complete: true });
      return true;
    } catch (error) {
      this.#options.logger.error('a mount cannot be completed', { target, error });
      return false;
    }
  }

  /** Gives everything back; mounts stay as they are. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closing.abort(new PantalaError('cancelled', 'the worker ends'));
    await this.#turn;
    for (const mount of this.#mounts.values()) {
      mount.ended.abort(new PantalaError('cancelled', 'the worker ends'));
      const image = await mount.image?.catch(() => undefined);
      await image?.[Symbol.asyncDispose]();
    }
    await this.#cache[Symbol.asyncDispose]();
  }
}

function stateOf(record: MountRecord): MountState {
  const { request, driver, complete, loop, mountedAt, lostAt } = record;
  return { mounted: request.target, driver, complete, loop, mountedAt, lostAt };
}

/** Blobs of mounts whose readers somebody has held back all the time. */
function blobsInUse({ places, generation }: LazyMountsOptions): ReadonlySet<string> {
  const records = new MountRecords(places.records).all().filter((record) => record.generation === generation);
  return new Set(records.flatMap(({ blobs }) => blobs.map(({ id }) => id)));
}
