import type { ByteString } from '@pantala/base';

/** A run of data in a file; between them are holes. Bytes. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** A file of a directory, which workers read by themselves. */
export interface FileOnDisk {
  readonly path: ByteString;
  /** Bytes. */
  readonly size: number;
  /** In order; undefined when all of it is data. */
  readonly extents?: readonly Extent[];
}

export function endOf({ offset, length }: Extent): number {
  return offset + length;
}
