import { ERROR_SURFACES, PantalaError } from '@pantala/base';
import { FillTrace, type FillTraceOptions, type MountAccounting } from '../accounting/index.ts';
import { type NydusdConfig, parseNydusdConfig } from '../config/index.ts';
import type { ApiAnswer, ApiMount, ApiMountRequest, ApiParts, ApiRequest, ApiRoutes } from './contract.ts';

/** Paths in one request's `prefetch_files`. */
const MAX_PREFETCH_FILES = 65_536;
const DONE: ApiAnswer = {};

/** nydusd's HTTP API as far as tools use it, Prometheus' metrics, and a trace of what is filled. */
export function nydusdRoutes(parts: ApiParts): ApiRoutes {
  const { service, events, cache } = parts;
  const answer = (body: object | undefined): ApiAnswer => (body === undefined ? DONE : { body });
  const ofMount =
    (tell: (mount: ApiMount) => object | undefined) =>
    async ({ url }: ApiRequest): Promise<ApiAnswer> =>
      answer(tell(mountAt(service.mounts, url.searchParams.get('id'))));
  const takesNoPart = async (): Promise<ApiAnswer> => {
    throw new PantalaError(
      'unimplemented',
      'descriptors are held by the guardian, which gives them to the next worker: stop this one and start the new one',
    );
  };
  const noBlobs = async (): Promise<ApiAnswer> => {
    throw new PantalaError('unimplemented', 'there is no fscache; mount the image with /api/v1/mount');
  };
  return {
    'GET /api/v1/daemon': async () => ({ body: { ...daemon(parts), backend_collection: collection(service.mounts) } }),
    'GET /api/v2/daemon': async () => ({ body: daemon(parts) }),
    'PUT /api/v1/daemon': (request) => configure(parts, request),
    'PUT /api/v2/daemon': (request) => configure(parts, request),
    // The worker serves from its first moment on.
    'PUT /api/v1/daemon/start': async () => DONE,
    'PUT /api/v2/daemon/start': async () => DONE,
    'PUT /api/v1/daemon/exit': () => exit(parts),
    'PUT /api/v2/daemon/exit': () => exit(parts),
    'PUT /api/v1/daemon/fuse/sendfd': takesNoPart,
    'PUT /api/v1/daemon/fuse/takeover': takesNoPart,
    'GET /api/v1/daemon/events': async () => ({ body: events.list() }),
    'GET /api/v1/daemon/backend': async ({ url }) => ({
      body: mountAt(service.mounts, url.searchParams.get('mountpoint')).config,
    }),
    'POST /api/v1/mount': async (request) => done(service.mount(mountRequest(request))),
    'PUT /api/v1/mount': async (request) => done(service.remount(mountRequest(request))),
    'DELETE /api/v1/mount': async ({ url }) => done(service.unmount(mountpointOf(url))),
    'GET /api/v1/config': async ({ url }) => {
      const { backend } = mountAt(service.mounts, url.searchParams.get('id'));
      return { body: backend === 'registry' ? { registry_auth: '' } : {} };
    },
    'PUT /api/v1/config': async ({ url, body }) => {
      const { mountpoint } = mountAt(service.mounts, url.searchParams.get('id'));
      const auth = textOf(record(body), 'registry_auth');
      if (auth === undefined) throw new PantalaError('invalid-argument', 'registry_auth is missing');
      return done(service.setCredentials(mountpoint, auth));
    },
    'GET /api/v1/metrics': ofMount((mount) => mount.opened?.accounting?.filesystem(mount.mountpoint)),
    'GET /api/v1/metrics/files': async ({ url }) => {
      const { opened } = mountAt(service.mounts, url.searchParams.get('id'));
      const isLatest = url.searchParams.get('latest') === 'true';
      return answer(isLatest ? opened?.accounting?.latest() : opened?.accounting?.files());
    },
    'GET /api/v1/metrics/pattern': ofMount(({ opened }) => opened?.accounting?.pattern()),
    'GET /api/v1/metrics/backend': ofMount(backendMetrics),
    'GET /api/v1/metrics/blobcache': ofMount((mount) => blobcacheMetrics(mount, cache)),
    'GET /api/v1/metrics/inflight': async () => answer(inflight(parts)),
    'GET /api/v2/blobs': noBlobs,
    'PUT /api/v2/blobs': noBlobs,
    'DELETE /api/v2/blobs': noBlobs,
    'GET /metrics': async () => {
      const rendered = await parts.metrics?.render();
      return rendered === undefined ? DONE : { body: rendered.body, contentType: rendered.contentType };
    },
    'GET /pantala/v1/trace': async ({ url, signal }) => {
      const id = url.searchParams.get('mountpoint');
      const traced = id === null ? {} : traceOf(mountAt(service.mounts, id).opened);
      return { body: new FillTrace(cache.fills).lines(signal, traced) };
    },
  };
}

/** What a trace shows of a mount. */
export function traceOf(
  opened:
    | { readonly blobs: readonly { readonly id: string }[]; readonly accounting: MountAccounting | undefined }
    | undefined,
): FillTraceOptions {
  const index = opened?.accounting?.index;
  return {
    ...(opened === undefined ? {} : { blobIds: new Set(opened.blobs.map(({ id }) => id)) }),
    ...(index === undefined ? {} : { index }),
  };
}

/** An error as nydusd answers it: its status, and a body that its tools can read. */
export function errorAnswer(thrown: unknown): ApiAnswer {
  const error = PantalaError.from(thrown);
  const { http } = ERROR_SURFACES[error.code];
  return { status: http === 499 ? 503 : http, body: { code: 'UNDEFINED', message: error.message } };
}

async function done(work: Promise<void>): Promise<ApiAnswer> {
  await work;
  return DONE;
}

function daemon({ version, service }: ApiParts): object {
  return {
    version: { package_ver: version, git_commit: '', build_time: '', profile: 'release', rustc: '' },
    id: service.id,
    supervisor: null,
    state: 'RUNNING',
  };
}

function collection(mounts: readonly ApiMount[]): object {
  const entries = mounts.map(({ mountpoint, mountedAt, config }) => [
    mountpoint,
    { backend_type: 'Rafs', mountpoint, mounted_time: new Date(mountedAt).toISOString(), config },
  ]);
  return Object.fromEntries(entries) as object;
}

async function configure({ service }: ApiParts, { body }: ApiRequest): Promise<ApiAnswer> {
  const level = textOf(record(body), 'log_level');
  if (level === undefined) throw new PantalaError('invalid-argument', 'log_level is missing');
  return done(service.setLogLevel(level));
}

/** Answered before it is done: the answer comes from the process that ends. */
async function exit({ service }: ApiParts): Promise<ApiAnswer> {
  setImmediate(() => void service.exit());
  return DONE;
}

/** @param id mountpoint; may be left out when there is only one */
function mountAt(mounts: readonly ApiMount[], id: string | null): ApiMount {
  const [only] = mounts;
  if (id === null || id === '' || id === '/') {
    if (only !== undefined && mounts.length === 1) return only;
    if (id !== '/')
      throw new PantalaError('invalid-argument', `there are ${mounts.length} mounts; say which with ?id=`);
  }
  const mount = mounts.find(({ mountpoint }) => mountpoint === id);
  if (mount === undefined) throw new PantalaError('not-found', `there is no mount ${id?.slice(0, 200) ?? ''}`);
  return mount;
}

function mountpointOf(url: URL): string {
  const mountpoint = url.searchParams.get('mountpoint') ?? '';
  if (!mountpoint.startsWith('/')) {
    throw new PantalaError(
      'invalid-argument',
      `?mountpoint= must be an absolute path, not "${mountpoint.slice(0, 200)}"`,
    );
  }
  return mountpoint;
}

function mountRequest({ url, body }: ApiRequest): ApiMountRequest {
  const fields = record(body);
  const type = textOf(fields, 'fs_type') ?? 'rafs';
  if (type.toLowerCase() !== 'rafs') {
    throw new PantalaError('invalid-argument', `fs_type "${type.slice(0, 100)}" cannot be mounted here; known: rafs`);
  }
  const source = textOf(fields, 'source');
  if (source === undefined || source === '') throw new PantalaError('invalid-argument', 'source is missing');
  return { mountpoint: mountpointOf(url), source, config: configOf(fields), prefetchFiles: prefetchFilesOf(fields) };
}

function configOf(fields: ReadonlyMap<string, unknown>): NydusdConfig | undefined {
  const text = textOf(fields, 'config');
  return text === undefined || text === '' ? undefined : parseNydusdConfig(text, 'config').config;
}

function prefetchFilesOf(fields: ReadonlyMap<string, unknown>): string[] {
  const files = fields.get('prefetch_files') ?? [];
  const isList = Array.isArray(files) && files.every((file) => typeof file === 'string');
  if (!isList || files.length > MAX_PREFETCH_FILES) {
    throw new PantalaError('invalid-argument', `prefetch_files must be a list of at most ${MAX_PREFETCH_FILES} paths`);
  }
  return files as string[];
}

function record(body: unknown): ReadonlyMap<string, unknown> {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) {
    throw new PantalaError('invalid-argument', 'the request must be a JSON object');
  }
  return new Map(Object.entries(body));
}

function textOf(fields: ReadonlyMap<string, unknown>, key: string): string | undefined {
  const value = fields.get(key);
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'string') throw new PantalaError('invalid-argument', `${key} must be a text`);
  return value;
}

function backendMetrics({ opened, backend }: ApiMount): object | undefined {
  if (opened === undefined) return undefined;
  const { reads, errors, bytes, milliseconds, byLatency, bySize, latencyBySize } = opened.backend;
  return {
    backend_type: backend,
    read_count: reads,
    read_errors: errors,
    read_amount_total: bytes,
    read_cumulative_latency_millis_total: Math.round(milliseconds),
    read_cumulative_latency_millis_dist: byLatency,
    read_count_block_size_dist: bySize,
    read_latency_sizes_dist: latencyBySize,
  };
}

function blobcacheMetrics({ opened }: ApiMount, { directory, counters }: ApiParts['cache']): object | undefined {
  if (opened === undefined) return undefined;
  const { blobs } = opened;
  const { firstPrefetchAt, lastPrefetchAt } = counters;
  const time = (name: string, at: number) => ({
    [`prefetch_${name}_time_secs`]: Math.floor(at / 1000),
    [`prefetch_${name}_time_millis`]: at % 1000,
  });
  return {
    id: '',
    underlying_files: blobs.map(({ path }) => path),
    store_path: directory,
    partial_hits: counters.partialHits,
    whole_hits: counters.wholeHits,
    total: counters.total,
    entries_count: blobs.length,
    prefetch_data_amount: counters.prefetchBytes,
    prefetch_requests_count: counters.prefetchRequests,
    prefetch_workers: counters.prefetchLanes,
    prefetch_unmerged_chunks: 0,
    prefetch_cumulative_time_millis: Math.round(counters.prefetchMilliseconds),
    ...time('begin', firstPrefetchAt),
    ...time('end', lastPrefetchAt),
    buffered_backend_size: 0,
    data_all_ready: blobs.every(({ complete }) => complete),
  };
}

/** The kernel asks for parts of blobs and not for those of files: there is no inode to tell. */
function inflight({ service }: ApiParts): object | undefined {
  if (service.inflight.length === 0) return undefined;
  return service.inflight.map(({ blobId, offset, length, since }, unique) => ({
    inode: 0,
    opcode: 15,
    unique,
    timestamp_secs: Math.floor(since / 1000),
    blob: blobId,
    offset,
    length,
  }));
}
