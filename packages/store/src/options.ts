import { PantalaError } from '@pantala/base';

/** What a store may be told. Times are milliseconds, sizes bytes. */
export interface StoreOptions {
  /** Where everything lies. Created when it is missing. */
  readonly directory: string;
  /** How long a task lives after its last use. Default 30 days. */
  readonly taskTimeToLive?: number;
  /** Disk space that counts as the whole; 0 (default): the size of the file system. */
  readonly diskThreshold?: number;
  /** Per cent of the whole from which on tasks are evicted. Default 80. */
  readonly diskHighThresholdPercent?: number;
  /** Per cent of the whole down to which tasks are evicted. Default 60. */
  readonly diskLowThresholdPercent?: number;
  /** Time between two looks at ages and the disk. Default 15 minutes. */
  readonly collectInterval?: number;
  /** Tasks whose files stay open without being in use. Each takes two descriptors. Default 256. */
  readonly maxOpenTasks?: number;
}

export type CompiledStoreOptions = Required<StoreOptions>;

const HOUR = 3_600_000;

/** @throws `invalid-argument` */
export function compileStoreOptions(given: StoreOptions): CompiledStoreOptions {
  const options: CompiledStoreOptions = {
    taskTimeToLive: 720 * HOUR,
    diskThreshold: 0,
    diskHighThresholdPercent: 80,
    diskLowThresholdPercent: 60,
    collectInterval: HOUR / 4,
    maxOpenTasks: 256,
    ...given,
  };
  const { diskHighThresholdPercent: high, diskLowThresholdPercent: low } = options;
  if (!(low > 0 && low <= high && high <= 100)) {
    throw new PantalaError(
      'invalid-argument',
      `disk thresholds of ${low} % and ${high} %: the low one must be above 0, the high one at most 100 and not below it`,
    );
  }
  for (const name of ['taskTimeToLive', 'diskThreshold', 'collectInterval', 'maxOpenTasks'] as const) {
    if (!(options[name] >= 0)) throw new PantalaError('invalid-argument', `${name} is ${options[name]}, below zero`);
  }
  return options;
}
