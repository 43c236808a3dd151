import type { Credentials } from '@pantala/oci';
import type { DriverName } from '../driver.ts';
import type { LocalSourceOptions, RegistrySourceOptions } from '../sources/index.ts';

/** Where a mount's bytes come from, as it is kept and sent: plain data. */
export type SourceSettings =
  | { readonly kind: 'local'; readonly local: LocalSourceOptions }
  | {
      readonly kind: 'registry';
      readonly registry: Omit<RegistrySourceOptions, 'credentials'>;
      /** The caller's own: as given, or from a Docker configuration file, which is read whenever they are asked for. */
      readonly credentials?: Credentials | { readonly kind: 'docker'; readonly path: string };
    };

export interface MountRequest {
  /** Directory; it is made. */
  readonly target: string;
  /** File with the image's bootstrap. */
  readonly bootstrap: string;
  /** SHA-256 that it must have, 64 hex digits; not checked when it is not said. */
  readonly bootstrapDigest?: string;
  readonly sources: SourceSettings;
  /** Default: what a trial on the cache directory finds. */
  readonly driver?: DriverName;
  /** Whether devices go through loop devices, which only the FUSE driver can fill. Default: where there is no other way. */
  readonly loop?: boolean;
  /** Whether the whole image is fetched in the background, so that it stands on its own. Default true. */
  readonly prefetchAll?: boolean;
  /** Paths in the image that are fetched first. */
  readonly prefetchFiles?: readonly string[];
}
