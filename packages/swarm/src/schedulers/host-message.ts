import { arch, availableParallelism, freemem, platform, release, totalmem } from 'node:os';
import type { commonV2, Sent } from '@pantala/api';
import type { SwarmOptions } from '../options.ts';

const SEED_HOST = 1;
const NORMAL_HOST = 0;

/** Facts about the machine that a program may know better. */
export type HostFacts = Pick<
  Exclude<Sent<typeof commonV2.HostSchema>, commonV2.Host>,
  | 'cpu'
  | 'memory'
  | 'network'
  | 'disk'
  | 'build'
  | 'os'
  | 'platform'
  | 'platformFamily'
  | 'platformVersion'
  | 'kernelVersion'
>;

/** This process as `AnnounceHost` tells it. Upstream's scheduler needs cpu, memory, network and disk to be there. */
export function hostMessage(options: SwarmOptions, facts: HostFacts): Sent<typeof commonV2.HostSchema> {
  const { host, hostId } = options;
  const total = BigInt(totalmem());
  const free = BigInt(freemem());
  return {
    id: hostId,
    type: host.seed ? SEED_HOST : NORMAL_HOST,
    hostname: host.hostname,
    name: host.hostname,
    ip: host.ip,
    port: host.port,
    downloadPort: host.piecePort,
    proxyPort: host.proxyPort ?? 0,
    os: platform(),
    platform: platform(),
    platformFamily: platform(),
    platformVersion: release(),
    kernelVersion: release(),
    schedulerClusterId: BigInt(host.schedulerClusterId ?? 1),
    disableShared: host.disableShared ?? false,
    cpu: { logicalCount: availableParallelism(), physicalCount: availableParallelism() },
    memory: { total, free, available: free, used: total - free },
    network: { idc: host.idc ?? '', location: host.location ?? '' },
    disk: {},
    build: { gitVersion: 'pantala', platform: `${platform()}/${arch()}` },
    ...facts,
  };
}
