import type { Credentials } from '@pantala/oci';
import type { LocalSourceOptions, RegistrySourceOptions } from '../sources/index.ts';

/** Where bytes come from, as plain data. */
export type ConfiguredSources =
  | { readonly kind: 'local'; readonly local: LocalSourceOptions }
  | {
      readonly kind: 'registry';
      readonly registry: Omit<RegistrySourceOptions, 'credentials'>;
      readonly credentials?: Credentials;
    };

/** What a configuration file of nydusd means here, checked and with defaults. Times are milliseconds, sizes bytes. */
export interface NydusdConfig {
  readonly id: string;
  /** Undefined when the file names no back end. */
  readonly sources: ConfiguredSources | undefined;
  /** Where blobs are cached; undefined: where they always are. */
  readonly workDirectory: string | undefined;
  /** Stored bytes that one request fetches along at most; 0: only what is asked for. */
  readonly pieceLength: number;
  readonly prefetch: {
    readonly enabled: boolean;
    /** Ranges fetched at once. */
    readonly lanes: number;
    /** Bytes a second; undefined: no limit. */
    readonly bandwidth: number | undefined;
    /** Whether everything follows when the lists are there. */
    readonly all: boolean;
  };
  readonly accounting: {
    /** Counters for each file. */
    readonly files: boolean;
    /** When each file was read first, and how often. */
    readonly pattern: boolean;
    /** Which files were read since the last question. */
    readonly latest: boolean;
  };
}

export interface LoadedNydusdConfig {
  readonly config: NydusdConfig;
  /** Keys without effect, with place and reason. */
  readonly warnings: readonly string[];
}
