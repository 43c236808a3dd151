import type { Logger } from '@pantala/base';
import { fileSystemOf } from '@pantala/linux';
import type { StoreMetrics } from './metrics.ts';
import type { CompiledStoreOptions } from './options.ts';
import type { FileTask } from './task.ts';
import type { TaskFiles } from './task-files.ts';

/**
 * An incomplete task that nobody has touched for so long is as good as any other to evict: whoever fetched it has
 * gone, for the longest pause of a transfer is far shorter.
 */
const ABANDONED_AFTER = 10 * 60_000;

/** A full disk is relieved by at least this much at once, so that the next write does not find it full again. */
const LEAST_RELIEF = 16 * 1024 * 1024;

/** Looks at the file system after an eviction this often before giving up: others write to it too. */
const MAX_ROUNDS = 3;

export interface CollectorHost {
  readonly options: CompiledStoreOptions;
  readonly files: TaskFiles;
  readonly metrics: StoreMetrics;
  readonly logger: Logger;
  now(): number;
  tasks(): Iterable<FileTask>;
  usedBytes(): number;
  evict(task: FileTask): Promise<void>;
  evicted(taskId: string): void;
}

/** Decides which tasks go: those unused for too long, and when the disk is too full those unused for longest. */
export class Collector {
  readonly #host: CollectorHost;
  #relief: Promise<number> | undefined;
  /** Settles when nothing is being decided: two at once would both choose the same tasks. */
  #idle: Promise<unknown> = Promise.resolve();

  constructor(host: CollectorHost) {
    this.#host = host;
  }

  /** One regular look at ages and the disk. */
  collect(): Promise<void> {
    return this.#alone(async () => {
      await this.#expire();
      await this.#relieve();
    });
  }

  /** Evicts down to the low mark when the high one is reached. */
  checkDisk(): Promise<void> {
    return this.#alone(() => this.#relieve());
  }

  async #relieve(): Promise<void> {
    for (let round = 0; round < MAX_ROUNDS; round++) {
      const { used, whole } = await this.#measure();
      const { diskHighThresholdPercent: high, diskLowThresholdPercent: low } = this.#host.options;
      if (used < (whole * high) / 100) return;
      if ((await this.#free(used - (whole * low) / 100)) === 0) return;
    }
  }

  /** Frees at least `bytes`, if that is possible; whether anything was freed. All who need room share one effort. */
  async makeRoom(bytes: number): Promise<boolean> {
    this.#relief ??= this.#alone(() => this.#free(Math.max(bytes, LEAST_RELIEF))).finally(() => {
      this.#relief = undefined;
    });
    return (await this.#relief) > 0;
  }

  #alone<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#idle.then(work);
    this.#idle = result.catch(() => {});
    return result;
  }

  async #measure(): Promise<{ used: number; whole: number }> {
    const { options } = this.#host;
    if (options.diskThreshold > 0) return { used: this.#host.usedBytes(), whole: options.diskThreshold };
    const { usedBytes, totalBytes } = await fileSystemOf(options.directory);
    return { used: usedBytes, whole: totalBytes };
  }

  async #expire(): Promise<void> {
    const limit = this.#host.now() - this.#host.options.taskTimeToLive;
    for (const task of this.#host.tasks()) {
      if (task.usedAt < limit && !task.busy) await this.#evict(task, 'age');
    }
  }

  /** Bytes that were really freed: what a hard link keeps alive is not, and such a task is left alone. */
  async #free(bytes: number): Promise<number> {
    const abandoned = this.#host.now() - ABANDONED_AFTER;
    const candidates = [...this.#host.tasks()]
      .filter((task) => task.bytes > 0 && (task.complete || task.usedAt < abandoned))
      .sort((a, b) => a.usedAt - b.usedAt);
    let freed = 0;
    for (const task of candidates) {
      if (freed >= bytes) break;
      if (task.busy || (await this.#host.files.links(task.id)) > 1 || task.busy) continue;
      freed += task.bytes;
      await this.#evict(task, 'disk');
    }
    return freed;
  }

  async #evict(task: FileTask, reason: 'age' | 'disk'): Promise<void> {
    const { bytes, usedAt } = task;
    const freed = this.#host.evict(task);
    this.#host.evicted(task.id);
    await freed;
    this.#host.metrics.evicted.add(1, { reason });
    this.#host.logger.info('task evicted', { task: task.id, reason, bytes, usedAt: new Date(usedAt).toISOString() });
  }
}
