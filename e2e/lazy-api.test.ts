import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { ControlClient } from '@pantala/lazyfs';
import { pantala, until } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BlobServer } from './lib/blob-server.ts';
import { type BuiltImage, LazyStage } from './lib/lazy-stage.ts';
import { MIB } from './lib/stage.ts';

const root = process.getuid?.() === 0;
/** A line of the trace: length and place of what was filled. */
const FILLED = / (\d+) bytes at (\d+) of blob [0-9a-f]{12} from /g;

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
      // What is read of a complete blob the kernel asks nobody about.
      fs_prefetch: { enable: true, prefetch_all: false },
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
    // Threads tell of the reads that they have answered a little later.
    const dataRead = async () =>
      ((await api.call('GET', `/api/v1/metrics?id=${mountpoint}`)) as { data_read: number }).data_read;
    await until(async () => (await dataRead()) >= 3 * MIB, { what: 'the reads are counted' });
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

  test('pantala mount --trace tells from the first moment on what was filled, of which files, from where', async () => {
    const other = await stage.build(image.tree, ['--chunk-size', '64KiB']);
    const mountpoint = stage.scratch.join('third');
    const source = ['--bootstrap', other.bootstrap, '--blob-dir', other.blobs];
    // Everything is fetched at once after the mount: nothing of it may be missing.
    await using program = await pantala(['mount', ...source, ...stage.options, '--trace', mountpoint], {
      ready: /^mounted /m,
    });
    const filled = () => [...program.stdout.matchAll(FILLED)].map(([, length, at]) => [Number(at), Number(length)]);
    const { size } = statSync(join(image.tree, 'large'));
    await until(() => filled().reduce((sum, [, length = 0]) => sum + length, 0) >= size, {
      what: 'the trace has every byte of the image',
    });
    expect(program.stdout).toMatch(/ from (localfs|blob [0-9a-f]{64}): .*\/large/);
    program.signal('SIGINT');
    expect((await program.exited).code).toBe(0);
    await stage.umount('third');
  });

  test('an image is exchanged for another one, which is there or the first one stays', async () => {
    const mountpoint = stage.scratch.join('first');
    const other = await stage.build(join(image.tree, 'etc'));
    const path = `/api/v1/mount?mountpoint=${mountpoint}`;
    const before = readdirSync(mountpoint);
    expect(before).toEqual(['etc', 'large']);
    for (const source of [join(image.tree, 'large'), stage.scratch.join('none')]) {
      await expect(api.call('PUT', path, { source })).rejects.toThrow();
      expect(readdirSync(mountpoint)).toEqual(before);
    }
    const used = openSync(join(mountpoint, 'large'), 'r');
    await expect(api.call('PUT', path, { source: other.bootstrap })).rejects.toThrow('is in use');
    closeSync(used);
    expect(readFileSync(join(mountpoint, 'large')).equals(readFileSync(join(image.tree, 'large')))).toBe(true);
    await api.call('PUT', path, { source: other.bootstrap });
    expect(readdirSync(mountpoint)).toEqual(['hosts']);
    expect(readFileSync(join(mountpoint, 'hosts'), 'utf8')).toBe('127.0.0.1 localhost\n');
    expect(await stage.mounts()).toMatchObject([{ mounted: mountpoint }]);
  });

  test('shows who waits for what, and keeps credentials over the death of the worker', async () => {
    const folder = stage.scratch.join('registry');
    const built = await stage.build(image.tree, ['--chunk-size', '256KiB', '-D', folder]);
    await using registry = await BlobServer.start(folder);
    registry.user = 'user:password';
    const mountpoint = stage.scratch.join('fourth');
    const backend = { type: 'registry', config: { scheme: 'http', host: new URL(registry.url).host, repo: 'any' } };
    const config = JSON.stringify({ device: { backend, cache: { type: 'blobcache' } }, amplify_io: 0 });
    await api.call('POST', `/api/v1/mount?mountpoint=${mountpoint}`, { source: built.bootstrap, config });
    const file = await open(join(mountpoint, 'large'), 'r');
    await using _file = file;
    const expected = readFileSync(join(image.tree, 'large'));
    const readAt = async (at: number) => {
      const { buffer } = await file.read(Buffer.alloc(4096), 0, 4096, at);
      return buffer.equals(expected.subarray(at, at + 4096));
    };
    await expect(readAt(0)).rejects.toThrow('EIO');

    const auth = Buffer.from(registry.user).toString('base64');
    await api.call('PUT', `/api/v1/config?id=${mountpoint}`, { registry_auth: auth });
    expect(await readAt(MIB)).toBe(true);
    await stage.killWorker();
    expect(await readAt(3 * MIB)).toBe(true);

    registry.manner = 'silent';
    const waiting = readAt(4 * MIB);
    const inflight = await until(() => api.call('GET', '/api/v1/metrics/inflight'), { what: 'a read is in flight' });
    expect(inflight).toMatchObject([{ opcode: 15, blob: readdirSync(folder)[0] }]);
    registry.manner = 'right';
    // Whoever was not answered asks again.
    await registry.down();
    await registry.up();
    expect(await waiting).toBe(true);
    await until(async () => (await api.call('GET', '/api/v1/metrics/inflight')) === undefined, {
      what: 'no read is in flight',
    });
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
