import { join, resolve } from 'node:path';
import { LOG_DIRECTORY } from '../roles.ts';
import type { SwarmValues } from './values.ts';

/** Where a swarm on one machine keeps its things. */
export interface Places {
  /** Directory of the programs' log directories. */
  readonly logs: string;
  /** Directory for the state of a program. */
  state(program: string): string;
  /** The first peer's store and socket. */
  readonly store: string;
  readonly socket: string;
  /** Sockets of the others and what the children are told. */
  readonly run: string;
  /** Directory of containerd's `hosts.toml` files. Undefined: what its configuration names. */
  readonly certsDir: string | undefined;
}

/** Everything below one directory, or at the usual places of the system and those that the file names. */
export function placesOf(directory: string | undefined, values: SwarmValues): Places {
  if (directory === undefined) {
    return {
      logs: values.peer.log.directory ?? LOG_DIRECTORY,
      state: (program) => `/var/lib/dragonfly-${program}`,
      store: values.peer.store.directory,
      socket: values.peer.socketPath,
      run: '/var/run/dragonfly',
      certsDir: undefined,
    };
  }
  const root = resolve(directory);
  return {
    logs: join(root, 'log'),
    state: (program) => join(root, 'lib', program),
    store: join(root, 'lib', 'dfdaemon'),
    socket: join(root, 'run', 'dfdaemon.sock'),
    run: join(root, 'run'),
    certsDir: join(root, 'etc', 'containerd', 'certs.d'),
  };
}
