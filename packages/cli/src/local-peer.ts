import { resolve } from 'node:path';
import { type RpcAddress, RpcError } from '@pantala/api';
import { PantalaError } from '@pantala/base';

/** The address of a peer's unix socket, named as a path or `unix:` URL. */
export function localAddress(endpoint: string): RpcAddress {
  return { path: resolve(endpoint.replace(/^unix:(?:\/\/)?/, '')) };
}

/** Calls a peer on its socket; when nobody answers there, says what to do. */
export async function reaching<T>(endpoint: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (error instanceof RpcError && error.code === 'unavailable') {
      throw new PantalaError(
        'unavailable',
        `no peer answers on ${endpoint}: start one with "pantala peer" or "pantala up", or name its socket with --endpoint`,
        { cause: error },
      );
    }
    throw error;
  }
}
