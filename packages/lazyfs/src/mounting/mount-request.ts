import type { AccountingOptions } from '../accounting/index.ts';
import type { ConfiguredSources } from '../config/index.ts';
import type { DriverName } from '../driver.ts';

type ConfiguredRegistry = Extract<ConfiguredSources, { kind: 'registry' }>;

/** Where a mount's bytes come from, as it is kept and sent: plain data. */
export type SourceSettings =
  | ConfiguredSources
  | (Omit<ConfiguredRegistry, 'credentials'> & {
      /** A Docker configuration file with the caller's own, read whenever they are asked for. */
      readonly credentials: { readonly kind: 'docker'; readonly path: string };
    });

/** What is fetched before it is read. */
export interface PrefetchSettings {
  /** Whether anything is. Default true. */
  readonly enabled?: boolean;
  /** Whether the whole image is, after the lists of image and mount, so that it stands on its own. Default true. */
  readonly all?: boolean;
  /** Paths in the image. */
  readonly files?: readonly string[];
  /** Ranges at once, 1 to 64. Default 4. */
  readonly lanes?: number;
  /** Stored bytes a second. Default: no limit. */
  readonly bandwidth?: number;
}

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
  readonly prefetch?: PrefetchSettings;
  /** Stored bytes that one request fetches along at most; 0: only what is asked for. Default 1 MiB. */
  readonly pieceLength?: number;
  /** Which files are counted. Default none: it takes memory for every file of the image. */
  readonly accounting?: AccountingOptions;
}
