import type { RpcTls } from '@pantala/api';
import type { HostIdentity } from '@pantala/base';

/** An address of a gRPC server. */
export interface ServerAddress {
  readonly host: string;
  readonly port: number;
}

/** Who this process is to schedulers and other peers. */
export interface LocalHost extends HostIdentity {
  /** Port of the upload gRPC service. */
  readonly port: number;
  /** Port of the TCP piece protocol. */
  readonly piecePort: number;
  readonly proxyPort?: number;
  readonly idc?: string;
  readonly location?: string;
  readonly schedulerClusterId?: number;
  /** It does not serve pieces to others. */
  readonly disableShared?: boolean;
}

/** What a program gives; everything else has a default. Times in milliseconds. */
export interface SwarmOptionsGiven {
  readonly host: LocalHost;
  readonly schedulers?: readonly ServerAddress[];
  /** Upload gRPC addresses of seeds that are asked when no scheduler can be. */
  readonly staticSeeds?: readonly ServerAddress[];
  readonly announceInterval?: number;
  /** Directory for content whose length its origin does not say, until it is known. Default: the system's. */
  readonly spoolDirectory?: string;
  /** Adds facts to the line "peer task done". */
  readonly verbose?: boolean;
  /** Mutual TLS towards schedulers, and towards the upload ports of other peers; not encrypted when left out. */
  readonly schedulerTls?: RpcTls | undefined;
  readonly peerTls?: RpcTls | undefined;
}

/** Options with every default filled in. Times in milliseconds. */
export interface SwarmOptions {
  readonly host: LocalHost;
  readonly hostId: string;
  readonly schedulers: readonly ServerAddress[];
  readonly staticSeeds: readonly ServerAddress[];
  readonly announceInterval: number;
  readonly spoolDirectory: string;
  readonly verbose: boolean;
  readonly schedulerTls: RpcTls | undefined;
  readonly peerTls: RpcTls | undefined;
}
