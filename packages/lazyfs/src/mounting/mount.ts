import type { AttachedBlob, DriverName } from '../driver.ts';
import type { MountRecord } from './mount-record.ts';
import type { MountRequest } from './mount-request.ts';
import type { OpenedImage } from './opened-image.ts';

/** A mount as it lives in a worker. */
export interface Mount {
  record: MountRecord;
  attached: AttachedBlob[];
  image: Promise<OpenedImage> | undefined;
  /** The same once it is there. */
  opened: OpenedImage | undefined;
  /** Ends what is fetched for it in the background. */
  readonly ended: AbortController;
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

export function stateOf({ record }: Mount): MountState {
  const { request, driver, complete, loop, mountedAt, lostAt } = record;
  return { mounted: request.target, driver, complete, loop, mountedAt, lostAt };
}
