import { PantalaError } from '@pantala/base';

/** As given. Everything but the directory has a default. */
export interface BlobCacheOptions {
  /** Where cache files and journals lie: on ext4, xfs or btrfs for the kernel's own way of lazy mounts. */
  readonly directory: string;
  /** Bytes above which blobs that nobody uses are evicted. Default: never because of this. */
  readonly highBytes?: number;
  /** Bytes down to which they are then evicted. Default 80 % of `highBytes`. */
  readonly lowBytes?: number;
  /** Milliseconds after which a reader gets an error. Default 60,000. */
  readonly demandDeadline?: number;
  /**
   * Ids of blobs that mounts of a killed process still read. What is recorded of them is trusted although the file was
   * written after its journal, as a kill leaves it: the kernel reads the file as it is anyway. Default: none.
   */
  readonly inUse?: ReadonlySet<string>;
}

export interface CompiledCacheOptions {
  readonly directory: string;
  readonly highBytes: number;
  readonly lowBytes: number;
  readonly demandDeadline: number;
  readonly inUse: ReadonlySet<string>;
}

/** @throws `invalid-argument` naming the option */
export function compileCacheOptions(given: BlobCacheOptions): CompiledCacheOptions {
  const highBytes = given.highBytes ?? Number.POSITIVE_INFINITY;
  const lowBytes = given.lowBytes ?? highBytes * 0.8;
  if (!(lowBytes > 0 && lowBytes <= highBytes)) {
    throw new PantalaError('invalid-argument', `marks of ${lowBytes} and ${highBytes} bytes are not low and high`);
  }
  const demandDeadline = given.demandDeadline ?? 60_000;
  if (!(demandDeadline > 0)) throw new PantalaError('invalid-argument', `a deadline of ${demandDeadline} ms is none`);
  return { directory: given.directory, highBytes, lowBytes, demandDeadline, inUse: given.inUse ?? new Set() };
}
