import { existsSync } from 'node:fs';

/** Where peers of today's and of the older generation listen for programs of their machine. */
const SOCKETS = ['/var/run/dragonfly/dfdaemon.sock', '/var/run/dfdaemon.sock'] as const;

/** The socket that is there; today's when none is. */
export function defaultEndpoint(): string {
  return SOCKETS.find((path) => existsSync(path)) ?? SOCKETS[0];
}
