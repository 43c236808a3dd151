import { join } from 'node:path';
import type { RateLimiter } from '@pantala/base';
import type { StoreOptions } from '@pantala/store';
import type { ListenerAddress, OriginOptions } from '@pantala/transfer';
import { NO_RATE_LIMIT, type PeerConfig } from './config/index.ts';

/** The store lies in a folder of its own: files of upstream's peers may lie beside it. */
export function storeOptions(config: PeerConfig['store']): StoreOptions {
  return {
    directory: join(config.directory, 'store'),
    taskTimeToLive: config.taskTtl,
    diskThreshold: config.capacity,
    diskHighThresholdPercent: config.highPercent,
    diskLowThresholdPercent: config.lowPercent,
    collectInterval: config.gcInterval,
  };
}

export function originOptions(
  { origin, download }: PeerConfig,
  given: { readonly limiter: RateLimiter | undefined; readonly ownListeners: () => readonly ListenerAddress[] },
): OriginOptions {
  return {
    addresses: {
      ...(origin.addresses.allow.length === 0 ? {} : { allow: origin.addresses.allow }),
      deny: origin.addresses.deny,
      ownListeners: given.ownListeners,
    },
    trust: origin.trust.map(({ hosts, insecure, authorities }) => ({
      ...(hosts === undefined ? {} : { hosts }),
      insecure,
      authorities,
    })),
    requestHeaders: Object.fromEntries(
      Object.entries(origin.headers).map(([name, value]) => [name.toLowerCase(), value]),
    ),
    attempts: origin.maxRetries + 1,
    redirectLifetime: origin.redirectTtl,
    ...(download.originRate < NO_RATE_LIMIT ? { rate: download.originRate } : {}),
    ...(given.limiter === undefined ? {} : { limiter: given.limiter }),
  };
}
