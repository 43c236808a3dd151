import { PantalaError } from '@pantala/base';
import { MAX_SOCKET_PATH_LENGTH } from './limits.ts';

/** Where a gRPC server listens or is reached: TCP, or a unix socket by its absolute path. */
export type RpcAddress = { readonly host: string; readonly port: number } | { readonly path: string };

/**
 * Reads `host:port`, `[ipv6]:port`, `unix:/path` and `unix:///path`.
 *
 * @throws `invalid-argument`
 */
export function parseRpcAddress(text: string): RpcAddress {
  if (text.startsWith('unix:')) return { path: checkedPath(text.slice(5).replace(/^\/\/(?=\/)/, '')) };
  const match = /^(?:\[([0-9a-fA-F:.%]+)\]|([^:[\]/]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65_535) {
    throw new PantalaError('invalid-argument', `"${text}" is no address: host:port or unix:/path is expected`);
  }
  return { host, port };
}

/** The address as gRPC and logs write it. */
export function formatRpcAddress(address: RpcAddress): string {
  if ('path' in address) return `unix:${checkedPath(address.path)}`;
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`;
}

function checkedPath(path: string): string {
  if (!path.startsWith('/')) {
    throw new PantalaError('invalid-argument', `the path of a unix socket must be absolute, not "${path}"`);
  }
  if (Buffer.byteLength(path) > MAX_SOCKET_PATH_LENGTH) {
    throw new PantalaError(
      'invalid-argument',
      `the path of a unix socket has at most ${MAX_SOCKET_PATH_LENGTH} bytes: "${path}"`,
    );
  }
  return path;
}
