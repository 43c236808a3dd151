/** Where a Pantala or Dragonfly peer answers gRPC on its own machine, unless its configuration says otherwise. */
export const DAEMON_SOCKET = '/var/run/dragonfly/dfdaemon.sock';

/** The socket beside a peer's daemon socket on which it gives content to programs of its machine by HTTP. */
export function proxySocketOf(daemonSocket: string): string {
  return `${daemonSocket.replace(/\.sock$/, '')}.proxy.sock`;
}

/** Bytes of a unix socket's path without its final zero (`sun_path` of unix(7)). */
export const MAX_SOCKET_PATH = 107;
