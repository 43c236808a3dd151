import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { ControlClient } from '@pantala/lazyfs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type BuiltImage, LazyStage } from './lib/lazy-stage.ts';
import { MIB } from './lib/stage.ts';

const root = process.getuid?.() === 0;

describe.skipIf(!root)("nydusd's API of a worker (as root)", () => {
  let stage: LazyStage;
  let image: BuiltImage;
  let api: ControlClient;

  beforeAll(async () => {
    stage = new LazyStage();
    const tree = stage.scratch.join('tree');
    mkdirSync(join(tree, 'etc'), { recursive: true });
    writeFileSync(join(tree, 'large'), randomBytes(5 * MIB + 77));
    writeFileSync(join(tree, 'etc', 'hosts'), '127.0.0.1 localhost\n');
    image = await stage.build(tree);
    // The first mount starts the worker.
    await stage.mount(image, 'first', '--no-prefetch');
    api = new ControlClient(stage.places.api);
  });

  afterAll(async () => {
    await stage[Symbol.asyncDispose]();
  });

  test('mounts an image as nydusd is told to, reads it, counts the reads, and unmounts it', async () => {
    const mountpoint = stage.scratch.join('second');
    const config = JSON.stringify({
      device: { backend: { type: 'localfs', config: { dir: image.blobs } }, cache: { type: 'blobcache' } },
      iostats_files: true,
      access_pattern: true,
      amplify_io: 0,
    });
    const body = { source: image.bootstrap, fs_type: 'rafs', config, prefetch_files: ['/etc'] };
    await api.call('POST', `/api/v1/mount?mountpoint=${mountpoint}`, body);
    const daemon = (await api.call('GET', '/api/v1/daemon')) as { backend_collection: Record<string, unknown> };
    expect(daemon).toMatchObject({ state: 'RUNNING', version: { package_ver: expect.any(String) as string } });
    expect(Object.keys(daemon.backend_collection)).toEqual([stage.scratch.join('first'), mountpoint]);

    const large = readFileSync(join(mountpoint, 'large'));
    expect(large.equals(readFileSync(join(image.tree, 'large')))).toBe(true);
    const metrics = (await api.call('GET', `/api/v1/metrics?id=${mountpoint}`)) as { data_read: number };
    expect(metrics.data_read).toBeGreaterThanOrEqual(5 * MIB);
    const pattern = (await api.call('GET', `/api/v1/metrics/pattern?id=${mountpoint}`)) as { path: string }[];
    expect(pattern.map(({ path }) => path)).toContain('/large');
    const backend = await api.call('GET', `/api/v1/metrics/backend?id=${mountpoint}`);
    expect(backend).toMatchObject({ backend_type: 'localfs', read_errors: 0 });
    const cache = (await api.call('GET', `/api/v1/metrics/blobcache?id=${mountpoint}`)) as {
      underlying_files: string[];
    };
    expect(cache.underlying_files).toHaveLength(1);

    await expect(api.call('GET', '/api/v1/metrics?id=/none')).rejects.toThrow('there is no mount /none');
    await api.call('PUT', '/api/v1/daemon', { log_level: 'debug' });
    await api.call('DELETE', `/api/v1/mount?mountpoint=${mountpoint}`);
    expect((await stage.mounts()).map(({ mounted }) => mounted)).toEqual([stage.scratch.join('first')]);
  });

  test('shows metrics to Prometheus', async () => {
    const text = await get(stage.places.api, '/metrics');
    expect(text).toMatch(/^pantala_lazyfs_cache_blobs \d+$/m);
    expect(text).toMatch(/^process_resident_memory_bytes \d+$/m);
  });

  test('tells live which ranges were missed and where they came from', async () => {
    const gone = new AbortController();
    const lines = api.lines('/pantala/v1/trace', gone.signal);
    const first = lines.next();
    const other = await stage.build(image.tree, ['--chunk-size', '64KiB']);
    await stage.mount(other, 'third', '--no-prefetch');
    readFileSync(stage.scratch.join('third', 'large'));
    const line = JSON.parse((await first).value as string) as Record<string, unknown>;
    expect(line).toMatchObject({ source: expect.any(String) as string, start: expect.any(Number) as number });
    gone.abort();
    await lines.next().catch(() => {});
    await stage.umount('third');
  });
});

async function get(socketPath: string, path: string): Promise<string> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    request({ socketPath, path }, resolve).on('error', reject).end();
  });
  let text = '';
  for await (const part of response as AsyncIterable<Buffer>) text += part.toString();
  return text;
}
