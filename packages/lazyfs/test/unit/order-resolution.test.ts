import { writeFileSync } from 'node:fs';
import { silentLogger } from '@pantala/base';
import { Scratch } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { resolveOrder } from '../../src/worker/order-resolution.ts';

const parts = { logger: silentLogger, signal: new AbortController().signal, isCached: () => false };

function configOf(scratch: Scratch, config: object): string {
  const path = scratch.join('nydusd.json');
  writeFileSync(path, JSON.stringify(config));
  return path;
}

const backend = { type: 'localfs', config: { dir: '/srv/blobs' } };

test('an order that names everything is taken as it is', async () => {
  const order = {
    target: '/mnt',
    bootstrap: '/boot',
    sources: { kind: 'local', local: { directories: ['/blobs'] } },
  } as const;
  await using resolved = await resolveOrder(order, parts);
  expect(resolved.request).toEqual(order);
});

test('what a command says of prefetching goes before its configuration, and is told what that has in vain', async () => {
  await using scratch = Scratch.create('order');
  const path = configOf(scratch, {
    device: { backend, cache: { type: 'blobcache', compressed: true } },
    fs_prefetch: { enable: true, threads_count: 3, bandwidth_rate: 1000 },
  });
  const order = { target: '/mnt', bootstrap: '/boot', config: { path }, prefetch: { enabled: false } };
  await using resolved = await resolveOrder(order, parts);
  expect(resolved.request).toMatchObject({
    target: '/mnt',
    bootstrap: '/boot',
    sources: { kind: 'local', local: { directories: ['/srv/blobs'] } },
    prefetch: { enabled: false, lanes: 3, bandwidth: 1000 },
  });
  expect(resolved.request).not.toHaveProperty('config');
  expect(resolved.warnings.join()).toContain('compressed');
});

test('the credentials of a command go before those of its configuration', async () => {
  await using scratch = Scratch.create('order');
  const auth = (text: string) => Buffer.from(text).toString('base64');
  const registry = { scheme: 'http', host: '127.0.0.1:5000', repo: 'app', auth: auth('file:old') };
  const path = configOf(scratch, { device: { backend: { type: 'registry', config: registry } } });
  const config = { path, pullAuth: auth('command:new') };
  await using resolved = await resolveOrder({ target: '/mnt', bootstrap: '/boot', config }, parts);
  expect(resolved.request.sources).toMatchObject({ credentials: { username: 'command', password: 'new' } });
});

test('a configuration without a back end, and a name that is none, are refused', async () => {
  await using scratch = Scratch.create('order');
  const config = { path: configOf(scratch, { fs_prefetch: { enable: false } }) };
  await expect(resolveOrder({ target: '/mnt', bootstrap: '/boot', config }, parts)).rejects.toMatchObject({
    code: 'failed-precondition',
  });
  const image = { reference: 'Not A Name', credentials: scratch.join('none') };
  await expect(resolveOrder({ target: '/mnt', image }, parts)).rejects.toMatchObject({ code: 'invalid-argument' });
});
