import { PantalaError } from '@pantala/base';
import type { AdminRoutes } from '../http/index.ts';
import { DEFAULT_PROFILE_FREQUENCY, DEFAULT_PROFILE_SECONDS, type Profiler } from './profiler.ts';

/** Upstream's paths, those that `go tool pprof` asks. */
export function profileRoutes(profiler: Profiler): AdminRoutes {
  return {
    '/debug/pprof/profile': async (url, signal) =>
      gzipped(
        await profiler.cpu(
          numberOf(url, 'seconds', DEFAULT_PROFILE_SECONDS),
          numberOf(url, 'frequency', DEFAULT_PROFILE_FREQUENCY),
          signal,
        ),
      ),
    '/debug/pprof/heap': async () => gzipped(await profiler.heap()),
    '/debug/pprof/': async () => ({
      contentType: 'text/plain; charset=utf-8',
      body: 'profile?seconds=10&frequency=1000  CPU\nheap  live allocations\nread them with: go tool pprof URL\n',
    }),
  };
}

function gzipped(body: Buffer): { readonly contentType: string; readonly body: Buffer } {
  return { contentType: 'application/octet-stream', body };
}

function numberOf(url: URL, name: string, fallback: number): number {
  const given = url.searchParams.get(name);
  if (given === null) return fallback;
  const value = Number(given);
  if (!Number.isFinite(value)) throw new PantalaError('invalid-argument', `${name}=${given} is not a number`);
  return value;
}
