import { pipeline } from 'node:stream/promises';
import { nodeHttp, PantalaError } from '@pantala/base';
import type { AdminHandler } from './admin-server.ts';

/** Where a program behind a shared port answers. */
export interface SideTarget {
  readonly host: string;
  readonly port: number;
}

/** Targets by the first part of the path after the program's name: `debug` or `metrics`. */
export type SideTargets = Readonly<Record<string, Readonly<Record<string, SideTarget | undefined>>>>;

/**
 * One port for several programs: `/<program>/debug/pprof/…` and `/<program>/metrics` go to that program, the same
 * paths without a program to `fallback`.
 */
export function sharedPort(programs: SideTargets, fallback: string): AdminHandler {
  return async (request, response) => {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const [, first = ''] = url.pathname.split('/');
    const named = Object.hasOwn(programs, first);
    const path = named ? url.pathname.slice(first.length + 1) : url.pathname;
    const [, kind = ''] = path.split('/');
    const target = programs[named ? first : fallback]?.[kind];
    if (target === undefined) {
      const known = Object.entries(programs).flatMap(([program, kinds]) =>
        Object.keys(kinds).map((known) => `/${program}/${known === 'debug' ? 'debug/pprof/' : known}`),
      );
      throw new PantalaError('not-found', `no ${url.pathname} here; there is: ${known.join(' ')}`);
    }
    const outgoing = nodeHttp().request({
      ...target,
      method: request.method,
      path: `${path}${url.search}`,
      headers: { ...request.headers, host: `${target.host}:${target.port}` },
    });
    const abort = (): void => void outgoing.destroy();
    response.once('close', abort);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    outgoing.once('error', reject);
    outgoing.once('response', (incoming) => {
      response.writeHead(incoming.statusCode ?? 502, incoming.headers);
      pipeline(incoming, response).then(resolve, reject);
    });
    // A request with a body has no meaning on these paths; it ends here.
    outgoing.end();
    request.resume();
    await promise;
    response.off('close', abort);
  };
}
