import { hostname, networkInterfaces } from 'node:os';
import type { PeerConfig } from '../config/index.ts';

/** Name and address by which schedulers and other peers know this machine. */
export interface HostName {
  readonly ip: string;
  readonly hostname: string;
}

/** What the configuration says, else the machine's name and its first address that is neither loopback nor link-local. */
export function hostName(config: PeerConfig['host']): HostName {
  return { ip: config.ip ?? firstAddress() ?? '127.0.0.1', hostname: config.hostname ?? hostname() };
}

/** IPv4 before IPv6: upstream's peers speak it in every version. */
function firstAddress(): string | undefined {
  const addresses = Object.values(networkInterfaces())
    .flatMap((entries) => entries ?? [])
    .filter(({ internal, address }) => !internal && !/^(169\.254\.|fe80:)/i.test(address));
  return (addresses.find(({ family }) => family === 'IPv4') ?? addresses[0])?.address;
}
