import type { ProxyOptions } from '@pantala/proxy';
import type { TlsFiles } from '@pantala/service';

/** Which of upstream's two generations of files, ports and paths a configuration belongs to. */
export type Generation = 'today' | 'older';

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** A registry or other origin whose certificate is checked in another way than by the system's authorities. */
export interface TrustRule {
  /** Pattern found anywhere in `host[:port]`; left out: every origin. */
  readonly hosts?: string;
  /** Certificates of these origins are not checked. */
  readonly insecure: boolean;
  /** Further authorities in PEM. */
  readonly authorities: readonly string[];
}

/**
 * Everything a peer is told, checked and with defaults: what both generations of files are compiled to. Plain data.
 * Times are milliseconds, sizes bytes, rates bytes per second. Port 0 is any free one.
 */
export interface PeerConfig {
  readonly generation: Generation;
  readonly host: {
    /** Undefined: the first address of the machine that is not loopback. */
    readonly ip: string | undefined;
    /** Undefined: the machine's name. */
    readonly hostname: string | undefined;
    readonly idc: string | undefined;
    readonly location: string | undefined;
    readonly schedulerClusterId: number | undefined;
  };
  readonly seed: { readonly enabled: boolean; readonly type: 'normal' | 'super' | 'strong' | 'weak' };
  readonly log: {
    readonly verbose: boolean;
    readonly console: boolean;
    /** Undefined: the generation's path below the log directory that the command names. */
    readonly directory: string | undefined;
  };
  /** The local gRPC socket. */
  readonly socketPath: string;
  readonly upload: {
    readonly grpc: Address;
    readonly pieces: Address;
    readonly rate: number;
    /** For each child's connection; undefined: none of its own. */
    readonly ratePerPeer: number | undefined;
    /** Serves nothing to other peers. */
    readonly disabled: boolean;
  };
  readonly download: {
    readonly rate: number;
    readonly ratePerPeer: number | undefined;
    readonly originRate: number;
    readonly prefetchRate: number;
  };
  readonly manager: Address | undefined;
  /** Named in the file itself; `dynconfig.yaml` and the manager name others. */
  readonly schedulers: readonly Address[];
  /** Mutual TLS of gRPC: what this peer shows on its own port, and to whom it calls. Undefined: not encrypted. */
  readonly tls: {
    readonly server: TlsFiles | undefined;
    /** To the upload ports of other peers. */
    readonly peers: TlsFiles | undefined;
    readonly schedulers: TlsFiles | undefined;
    readonly manager: TlsFiles | undefined;
  };
  /** Between two readings of `dynconfig.yaml`, or two questions to the manager. */
  readonly refreshInterval: number;
  readonly announceInterval: number;
  readonly store: {
    readonly directory: string;
    readonly taskTtl: number;
    readonly gcInterval: number;
    /** Size of the disk that the marks refer to; 0: the whole file system. */
    readonly capacity: number;
    readonly highPercent: number;
    readonly lowPercent: number;
  };
  readonly origin: {
    /** Sent with every request to an origin. */
    readonly headers: Readonly<Record<string, string>>;
    readonly maxRetries: number;
    /** 0: redirects are not remembered. */
    readonly redirectTtl: number;
    readonly trust: readonly TrustRule[];
    /** Blocks of addresses that origins may have; with nothing in `allow`, all but those in `deny`. */
    readonly addresses: { readonly allow: readonly string[]; readonly deny: readonly string[] };
  };
  readonly proxy: ProxyOptions;
  readonly health: Address & { readonly paths: readonly string[] };
  readonly metrics: Address | undefined;
  readonly profiles: Address | undefined;
}

/** What the bytes of 50 GB a second are: upstream's way to say "no limit". */
export const NO_RATE_LIMIT = 50_000_000_000;

export const MINUTE = 60_000;
export const HOUR = 3_600_000;

/** Listeners that only programs of this machine need. Upstream opens them to everybody. */
export const LOOPBACK = '127.0.0.1';
/** Listeners that other peers need. */
export const EVERYWHERE = '0.0.0.0';
