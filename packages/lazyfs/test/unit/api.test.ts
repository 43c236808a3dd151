import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PantalaError, silentLogger } from '@pantala/base';
import {
  type ApiAnswer,
  type ApiMountRequest,
  type ApiParts,
  BlobCache,
  ErrorEvents,
  errorAnswer,
  layoutsOf,
  localSources,
  MountAccounting,
  nydusdRoutes,
  prefetch,
} from '@pantala/lazyfs';
import { nodeAt, readBootstrap } from '@pantala/rafs';
import { MetricsRegistry } from '@pantala/service';
import { Scratch } from '@pantala/testkit';
import { expect, test } from 'vitest';

const IMAGE = join(import.meta.dirname, '../../../rafs/test/fixtures/nydus-tools/m-zstd');
const { signal } = new AbortController();

/** A worker's API over a real image in a real cache, without a kernel that mounts it. */
async function rig(directory: string) {
  await using stack = new AsyncDisposableStack();
  const bootstrap = readBootstrap(readFileSync(join(IMAGE, 'bootstrap')));
  const { image } = bootstrap;
  const metrics = new MetricsRegistry({ process: false });
  const cache = stack.use(await BlobCache.open({ directory }, { metrics }));
  const sources = stack.use(localSources({ directories: [join(IMAGE, 'blobs')] }, { metrics }));
  const accounting = new MountAccounting(image, { files: true, pattern: true, latest: true });
  const access = { fetcher: sources, pieceLength: 0, onRead: accounting.read.bind(accounting) };
  const layouts = await layoutsOf(bootstrap, { directory, fetcher: sources }, { urgency: 'demand', signal });
  const blobs = await Promise.all(layouts.map(async (layout) => stack.use(await cache.blob(layout, access))));
  const events = new ErrorEvents();
  const asked: (ApiMountRequest | string)[] = [];
  const note = async (what: ApiMountRequest | string) => void asked.push(what);
  const parts: ApiParts = {
    version: '1.2.3',
    cache,
    events,
    metrics,
    service: {
      id: 'worker',
      mounts: [
        {
          mountpoint: '/mnt/image',
          mountedAt: Date.UTC(2030, 0, 1),
          backend: 'localfs',
          config: { dir: '/blobs' },
          opened: { blobs, backend: sources.counters, accounting },
        },
      ],
      inflight: [{ blobId: blobs[0]?.id ?? '', offset: 4096, length: 8192, since: 1_000_000 }],
      mount: note,
      remount: note,
      unmount: note,
      setCredentials: (mountpoint, auth) => note(`${mountpoint} ${auth}`),
      setLogLevel: note,
      exit: () => note('exit'),
    },
  };
  const routes = nydusdRoutes(parts);
  const ask = async (key: string, body?: unknown): Promise<ApiAnswer> => {
    const [method = '', target = ''] = key.split(' ');
    const url = new URL(target, 'http://localhost');
    try {
      return (await routes[`${method} ${url.pathname}`]?.({ url, body, signal })) ?? { status: 404 };
    } catch (error) {
      return errorAnswer(error);
    }
  };
  const owned = stack.move();
  return { image, cache, blobs, events, asked, ask, routes, [Symbol.asyncDispose]: () => owned.disposeAsync() };
}

test('the daemon says what it is and what it has mounted', async () => {
  await using scratch = Scratch.create('api');
  await using api = await rig(scratch.path);
  expect((await api.ask('GET /api/v1/daemon')).body).toMatchObject({
    version: { package_ver: '1.2.3' },
    id: 'worker',
    state: 'RUNNING',
    backend_collection: {
      '/mnt/image': {
        backend_type: 'Rafs',
        mountpoint: '/mnt/image',
        mounted_time: '2030-01-01T00:00:00.000Z',
        config: { dir: '/blobs' },
      },
    },
  });
  expect((await api.ask('GET /api/v2/daemon')).body).not.toHaveProperty('backend_collection');
  expect((await api.ask('GET /api/v1/daemon/backend?mountpoint=/mnt/image')).body).toEqual({ dir: '/blobs' });
  expect(await api.ask('PUT /api/v1/daemon/start')).toEqual({});
});

test('mounting, mounting anew and unmounting reach the worker, checked', async () => {
  await using scratch = Scratch.create('api');
  await using api = await rig(scratch.path);
  const config = JSON.stringify({ device: { backend: { type: 'localfs', config: { dir: '/b' } } } });
  const body = { source: '/b/bootstrap', fs_type: 'rafs', config, prefetch_files: ['/etc'] };
  await api.ask('POST /api/v1/mount?mountpoint=/mnt/a', body);
  await api.ask('PUT /api/v1/mount?mountpoint=/mnt/a', { source: '/b/other' });
  await api.ask('DELETE /api/v1/mount?mountpoint=/mnt/a');
  await api.ask('PUT /api/v1/config?id=/mnt/image', { registry_auth: 'dTpw' });
  await api.ask('PUT /api/v1/daemon', { log_level: 'debug' });
  expect(api.asked).toMatchObject([
    {
      mountpoint: '/mnt/a',
      source: '/b/bootstrap',
      prefetchFiles: ['/etc'],
      config: { sources: { kind: 'local', local: { directories: ['/b'] } } },
    },
    { mountpoint: '/mnt/a', source: '/b/other', config: undefined, prefetchFiles: [] },
    '/mnt/a',
    '/mnt/image dTpw',
    'debug',
  ]);
  const refused: [string, unknown, number][] = [
    ['POST /api/v1/mount', body, 400],
    ['POST /api/v1/mount?mountpoint=/a', { source: '' }, 400],
    ['POST /api/v1/mount?mountpoint=/a', { ...body, fs_type: 'passthroughfs' }, 400],
    ['POST /api/v1/mount?mountpoint=/a', { ...body, prefetch_files: [1] }, 400],
    ['POST /api/v1/mount?mountpoint=/a', 'text', 400],
    ['GET /api/v1/metrics?id=/none', undefined, 404],
    ['PUT /api/v1/daemon/fuse/takeover', undefined, 501],
    ['GET /api/v2/blobs', undefined, 501],
  ];
  for (const [key, sent, status] of refused) {
    expect(await api.ask(key, sent), key).toMatchObject({ status, body: { code: 'UNDEFINED' } });
  }
});

test('counters are those of real reads', async () => {
  await using scratch = Scratch.create('api');
  await using api = await rig(scratch.path);
  const path = '/aaa_five_5';
  const node = nodeAt(api.image.root, path);
  const [chunk] = node?.kind === 'regular' ? node.content : [];
  const start = chunk?.uncompressedOffset ?? 0;
  const range = { start, end: start + 4096 };
  const [blob] = api.blobs;
  await blob?.ensure(range, { urgency: 'demand', signal });
  await blob?.ensure(range, { urgency: 'demand', signal });

  expect((await api.ask('GET /api/v1/metrics')).body).toMatchObject({
    id: '/mnt/image',
    files_account_enabled: true,
    data_read: 8192,
    block_count_read: [0, 0, 2, 0, 0, 0, 0, 0],
    fop_hits: [0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  });
  const files = Object.values((await api.ask('GET /api/v1/metrics/files?id=/mnt/image')).body as object);
  expect(files).toContainEqual(expect.objectContaining({ path, data_read: 8192, total_fops: 2 }));
  const pattern = (await api.ask('GET /api/v1/metrics/pattern')).body;
  expect(pattern).toContainEqual(expect.objectContaining({ path, nr_read: 2 }));
  const latest = (await api.ask('GET /api/v1/metrics/files?latest=true')).body;
  expect(latest).toHaveLength(1);
  expect((await api.ask('GET /api/v1/metrics/files?latest=true')).body).toEqual([]);

  expect((await api.ask('GET /api/v1/metrics/backend')).body).toMatchObject({
    backend_type: 'localfs',
    read_count: 1,
    read_errors: 0,
    read_count_block_size_dist: expect.any(Array) as number[],
  });
  expect((await api.ask('GET /api/v1/metrics/blobcache')).body).toMatchObject({
    underlying_files: api.blobs.map((each) => each.path),
    store_path: scratch.path,
    total: 2,
    whole_hits: 1,
    prefetch_requests_count: 0,
    data_all_ready: false,
  });
  const plan = { ofImage: [], ofMount: [], everything: true, missing: [] };
  await prefetch(plan, api.blobs, { logger: silentLogger, signal });
  const after = (await api.ask('GET /api/v1/metrics/blobcache')).body as Record<string, number>;
  expect(after).toMatchObject({ data_all_ready: true, prefetch_workers: 0 });
  expect(after.prefetch_data_amount).toBeGreaterThan(1000);
  expect(after.prefetch_begin_time_secs).toBeGreaterThan(1_700_000_000);
  expect((await api.ask('GET /api/v1/metrics/inflight')).body).toMatchObject([{ offset: 4096, timestamp_secs: 1000 }]);

  const prometheus = (await api.ask('GET /metrics')).body as string;
  expect(prometheus).toContain('pantala_lazyfs_reads_total{held="none"} 1');
  expect(prometheus).toMatch(/pantala_lazyfs_source_bytes_total\{source="localfs"\} \d{3,}/);
});

test('the trace tells live what was missed, in which files, and where it came from', async () => {
  await using scratch = Scratch.create('api');
  await using api = await rig(scratch.path);
  const end = new AbortController();
  const url = new URL('http://localhost/pantala/v1/trace?mountpoint=/mnt/image');
  const answer = await api.routes['GET /pantala/v1/trace']?.({ url, body: undefined, signal: end.signal });
  if (typeof answer?.body !== 'object' || !(Symbol.asyncIterator in answer.body)) throw new Error('no stream of lines');
  const lines = answer.body[Symbol.asyncIterator]();
  const first = lines.next();
  const [blob] = api.blobs;
  await blob?.ensure({ start: 0, end: 1 }, { urgency: 'demand', signal });
  const line = JSON.parse((await first).value as string) as Record<string, unknown>;
  expect(line).toMatchObject({ blob: blob?.id, start: 0, source: 'localfs', urgency: 'demand' });
  expect(line.fetched).toBeGreaterThan(0);
  expect((line.files as string[]).length).toBeGreaterThan(0);
  end.abort();
  let rest = await lines.next();
  while (rest.done !== true) rest = await lines.next();
});

test('errors are kept as events, the newest ones', async () => {
  await using scratch = Scratch.create('api');
  await using api = await rig(scratch.path);
  const logger = api.events.watching(silentLogger).child({ part: 'x' });
  for (let at = 0; at < 600; at++) logger.error('it failed', { at, error: new PantalaError('unavailable', 'gone') });
  logger.warn('no event');
  const events = (await api.ask('GET /api/v1/daemon/events')).body as { errors: string[]; total_errors: number };
  expect(events.total_errors).toBe(600);
  expect(events.errors.length).toBeLessThanOrEqual(500);
  expect(events.errors.at(-1)).toContain('it failed at=599 error=gone');
});
