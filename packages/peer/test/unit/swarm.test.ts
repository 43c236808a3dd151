import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { createClient, dfdaemonV2, schedulerV2 } from '@pantala/api';
import { silentLogger } from '@pantala/base';
import { startManager } from '@pantala/manager';
import { startScheduler } from '@pantala/scheduler';
import { MetricsRegistry } from '@pantala/service';
import { Content, Origin, Scratch, until } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { counted, type TestPeer, testPeer } from '../support.ts';

const ANY = { host: '127.0.0.1', port: 0 };
const MIB = 1024 * 1024;

/** SHA-256 of what a proxy answers for a URL. */
function throughProxy(proxy: string, url: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(proxy);
    const sent = request({ host: hostname, port, path: url, headers: { host: new URL(url).host } }, (response) => {
      if (response.statusCode !== 200) reject(new Error(`status ${response.statusCode}`));
      const hash = createHash('sha256');
      response.on('data', (data: Buffer) => hash.update(data));
      response.on('end', () => resolve(hash.digest('hex')));
      response.on('error', reject);
    });
    sent.on('error', reject).end();
  });
}

async function throughSocket(peer: TestPeer, url: string, outputPath: string): Promise<void> {
  using client = createClient(dfdaemonV2.DfdaemonDownload, { path: peer.peer.socketPath });
  for await (const _ of client.downloadTask({ download: { url, outputPath } }));
}

test('manager, scheduler, seed and two peers: the origin gives each byte once', async () => {
  await using scratch = Scratch.create('peer');
  await using origin = await Origin.start({ host: '127.0.0.1' });
  const content = new Content(24 * MIB + 4711, 'swarm');
  const url = origin.serve(`/v2/library/x/blobs/sha256:${content.sha256}`, content);
  const parts = () => ({ logger: silentLogger, metrics: new MetricsRegistry({ process: false }) });
  await using manager = await startManager(
    { grpc: ANY, rest: ANY, database: join(scratch.path, 'manager.db') },
    parts(),
  );
  await using scheduler = await startScheduler(
    {
      listen: ANY,
      advertise: { ip: '127.0.0.1' },
      manager: { address: manager.addresses.grpc, keepAliveInterval: 500 },
    },
    parts(),
  );
  const start = (name: string, seed: boolean) =>
    testPeer({ name, seed, directory: scratch.path, manager: manager.addresses.grpc });
  await using _seed = await start('seed', true);
  await using one = await start('one', false);
  await using two = await start('two', false);
  using hosts = createClient(schedulerV2.Scheduler, scheduler.address);
  await until(async () => (await hosts.listHosts({})).hosts.length === 3, { what: 'all hosts are announced' });

  const [first] = await Promise.all([
    throughProxy(one.proxy, url),
    throughSocket(two, url, join(scratch.path, 'output')),
  ]);
  expect(first).toBe(content.sha256);
  const output = await readFile(join(scratch.path, 'output'));
  expect(createHash('sha256').update(output).digest('hex')).toBe(content.sha256);
  const path = new URL(url).pathname;
  expect(origin.count(path).bytes).toBeLessThan(1.02 * content.length);
  for (const peer of [one, two]) {
    const fromPeers = await counted(peer.metrics, 'dragonfly_client_download_traffic', '{type="REMOTE_PEER"}');
    expect(fromPeers).toBeGreaterThan(0.9 * content.length);
  }
  // A hit is served by the store alone, and writes no further line.
  const before = origin.count(path).requests;
  expect(await throughProxy(one.proxy, url)).toBe(content.sha256);
  expect(origin.count(path).requests).toBe(before);
  const lines = await until(
    async () => {
      const found = (await readFile(one.logFile, 'utf8')).split('\n').filter((line) => line.includes('peer task done'));
      return found.length > 0 && found;
    },
    { what: 'the line of the log' },
  );
  expect(lines).toHaveLength(1);
  const line = JSON.parse(lines[0] as string) as Record<string, string>;
  expect(Object.keys(line)).toEqual(['level', 'ts', 'caller', 'msg', 'peer', 'task', 'component', 'trace']);
  expect(line).toMatchObject({ level: 'info', task: content.sha256, component: 'PeerTask' });
  expect(line.caller).toBe('peer/peertask_conductor.go:1349');
  expect(line.msg).toMatch(/^peer task done, cost: \d+ms$/);
  expect(line.peer).toMatch(/^127\.0\.0\.1-\d+-[0-9a-f-]{36}$/);
  expect(line.trace).toMatch(/^[0-9a-f]{32}$/);
}, 60_000);
