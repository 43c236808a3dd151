import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { join } from 'node:path';
import { ControlClient } from '@pantala/lazyfs';
import { pantala, until } from '@pantala/testkit';
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
    // What the kernel read after the blob was complete it asked nobody about.
    expect(metrics.data_read).toBeGreaterThanOrEqual(3 * MIB);
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

  test('pantala mount --trace tells live which ranges were missed, of which files, and where they came from', async () => {
    const other = await stage.build(image.tree, ['--chunk-size', '64KiB']);
    const mountpoint = stage.scratch.join('third');
    const source = ['--bootstrap', other.bootstrap, '--blob-dir', other.blobs];
    await using program = await pantala(
      ['mount', ...source, ...stage.options, '--no-prefetch', '--trace', mountpoint],
      {
        ready: /^mounted /m,
      },
    );
    // What is read before the trace has begun is not in it: the file is read piece by piece until it is.
    {
      using large = openFile(join(mountpoint, 'large'));
      await until(async () => large.readNext() && program.stdout.includes('/large'), {
        what: 'the trace names the file',
      });
    }
    expect(program.stdout).toMatch(
      /demand {3}\d+ bytes at \d+ of blob [0-9a-f]{12} from (localfs|blob [0-9a-f]{64}): /,
    );
    program.signal('SIGINT');
    expect((await program.exited).code).toBe(0);
    await stage.umount('third');
  });
});

/** Reads a file in steps of 128 KiB. */
function openFile(path: string): { readNext(): boolean } & Disposable {
  const file = openSync(path, 'r');
  let at = 0;
  return {
    readNext() {
      at += readSync(file, Buffer.alloc(4096), 0, 4096, at) > 0 ? 128 * 1024 : 0;
      return true;
    },
    [Symbol.dispose]: () => closeSync(file),
  };
}

async function get(socketPath: string, path: string): Promise<string> {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    request({ socketPath, path }, resolve).on('error', reject).end();
  });
  let text = '';
  for await (const part of response as AsyncIterable<Buffer>) text += part.toString();
  return text;
}
