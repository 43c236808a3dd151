import { randomUUID } from 'node:crypto';
import type { Logger, PantalaError } from '@pantala/base';
import { createAccessGroup } from '@pantala/linux';
import { Demand, type WaitingRead } from '../demand.ts';
import type { DriverName, LazyDriver } from '../driver.ts';
import { FanotifyDriver } from '../fanotify/driver.ts';
import { connectFuse, disconnectFuse, FuseDriver } from '../fuse/driver.ts';
import type { Held, HeldName } from '../guardian/held.ts';
import { PendingTable } from '../pending/pending-table.ts';

export interface DriversOptions {
  /** What the worker before this one left; undefined when there was none. */
  readonly inherited: Held | undefined;
  /** Where the FUSE driver shows blobs. */
  readonly fuseDirectory: string;
  readonly logger: Logger;
  /** Called when there is more to be held than before. */
  readonly onNewDescriptors: () => Promise<void>;
  /** Called when this worker can serve no longer. */
  readonly onFailure: (error: PantalaError) => void;
}

/** The drivers of a worker, each made when it is first wanted, and the descriptors that the guardian holds for them. */
export class Drivers {
  readonly #options: DriversOptions;
  readonly #descriptors: Partial<Record<HeldName, number>>;
  readonly #drivers = new Map<DriverName, Promise<LazyDriver>>();
  readonly #demand: Demand;
  readonly generation: string;

  constructor(options: DriversOptions) {
    this.#options = options;
    this.#descriptors = { ...options.inherited?.descriptors };
    this.generation = options.inherited?.generation ?? randomUUID();
    this.#demand = new Demand({ logger: options.logger });
  }

  get held(): Held {
    return { generation: this.generation, descriptors: this.#descriptors };
  }

  /** Reads of all drivers that have no answer yet. */
  get waiting(): WaitingRead[] {
    return this.#demand.waiting;
  }

  /** @throws LinuxError when the kernel cannot do it */
  get(name: DriverName): Promise<LazyDriver> {
    const made = this.#drivers.get(name) ?? this.#make(name);
    this.#drivers.set(name, made);
    made.catch(() => this.#drivers.delete(name));
    return made;
  }

  async #make(name: DriverName): Promise<LazyDriver> {
    if (name === 'fuse') return this.#makeFuse();
    const { logger, onFailure, onNewDescriptors } = this.#options;
    const isNew = this.#descriptors.access === undefined;
    const group = this.#descriptors.access ?? createAccessGroup();
    const memory = this.#descriptors['access-pending'] ?? PendingTable.create();
    this.#descriptors.access = group;
    this.#descriptors['access-pending'] = memory;
    if (isNew) await onNewDescriptors();
    return new FanotifyDriver({ group, table: new PendingTable(memory), demand: this.#demand, logger, onFailure });
  }

  async #makeFuse(): Promise<LazyDriver> {
    const { logger, onFailure, onNewDescriptors, fuseDirectory } = this.#options;
    const isNew = this.#descriptors.fuse === undefined;
    const device = this.#descriptors.fuse ?? (await connectFuse(fuseDirectory));
    const memory = this.#descriptors['fuse-pending'] ?? PendingTable.create();
    this.#descriptors.fuse = device;
    this.#descriptors['fuse-pending'] = memory;
    if (isNew) await onNewDescriptors();
    const table = new PendingTable(memory);
    return new FuseDriver({ device, directory: fuseDirectory, table, demand: this.#demand, logger, onFailure });
  }

  /** Answers whoever reads what the worker before this one left, also of mounts that nobody remembers: they get an error. */
  async startInherited(): Promise<void> {
    const { descriptors = {} } = this.#options.inherited ?? {};
    if (descriptors.access !== undefined) (await this.get('fanotify')).start();
    if (descriptors.fuse !== undefined) (await this.get('fuse')).start();
  }

  /** Stops taking events, and waits for those in flight; what comes then is the next worker's. */
  async pause(): Promise<void> {
    for (const driver of this.#drivers.values()) await (await driver.catch(() => undefined))?.pause();
  }

  /** Takes away what no mount needs any more. */
  async disconnect(): Promise<void> {
    if (this.#descriptors.fuse !== undefined) await disconnectFuse(this.#options.fuseDirectory);
  }
}
