import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient, MessageQueue, managerV2, type Sent } from '@pantala/api';
import { silentLogger } from '@pantala/base';
import { MetricsRegistry } from '@pantala/service';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Manager, type ManagerOptions, startManager } from '../../src/index.ts';

const { SourceType } = managerV2;
const ANY = { host: '127.0.0.1', port: 0 };
const scheduler = {
  sourceType: SourceType.SCHEDULER_SOURCE,
  hostname: 'scheduler-1',
  ip: '10.1.2.3',
  port: 8002,
  schedulerClusterId: 1n,
};
const alive = { sourceType: SourceType.SCHEDULER_SOURCE, hostname: 'scheduler-1', ip: '10.1.2.3', clusterId: 1n };

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'pantala-manager-'));
});
afterEach(() => rm(directory, { recursive: true }));

const start = (options: ManagerOptions = {}) =>
  startManager(
    { grpc: ANY, rest: ANY, database: join(directory, 'state/manager.db'), ...options },
    { logger: silentLogger, metrics: new MetricsRegistry({ process: false }) },
  );
const clientOf = (manager: Manager) => createClient(managerV2.Manager, manager.addresses.grpc);
const listed = async (client: ReturnType<typeof clientOf>) =>
  (await client.listSchedulers({ hostname: 'peer', ip: '10.0.0.9' })).schedulers.map(({ hostname }) => hostname);

function keepAlive(client: ReturnType<typeof clientOf>, member: Sent<typeof managerV2.KeepAliveRequestSchema> = alive) {
  const messages = new MessageQueue<Sent<typeof managerV2.KeepAliveRequestSchema>>();
  messages.push(member);
  const ended = client.keepAlive(messages);
  ended.catch(() => {});
  return { messages, ended };
}

test('a scheduler is listed from its first keep-alive message to the end of the stream', async () => {
  await using manager = await start();
  using client = clientOf(manager);
  const registered = await client.updateScheduler(scheduler);
  expect(registered).toMatchObject({ state: 'inactive', ip: '10.1.2.3', port: 8002, schedulerClusterId: 1n });
  expect(await listed(client)).toEqual([]);
  const { messages, ended } = keepAlive(client);
  await expect.poll(() => listed(client)).toEqual(['scheduler-1']);
  messages.end();
  await ended;
  expect(await listed(client)).toEqual([]);
});

test('the end of an older stream does not remove a scheduler that has opened a newer one', async () => {
  await using manager = await start();
  using client = clientOf(manager);
  await client.updateScheduler(scheduler);
  const older = keepAlive(client);
  await expect.poll(() => listed(client)).toEqual(['scheduler-1']);
  const newer = keepAlive(client);
  // Answered after the newer stream's first message: streams of one connection keep their order.
  await expect.poll(() => listed(client)).toEqual(['scheduler-1']);
  older.messages.end();
  await older.ended;
  expect(await listed(client)).toEqual(['scheduler-1']);
  newer.messages.end();
  await newer.ended;
  expect(await listed(client)).toEqual([]);
});

test('silence ends a keep-alive stream', async () => {
  await using manager = await start({ keepAliveTimeout: 30 });
  using client = clientOf(manager);
  await client.updateScheduler(scheduler);
  await expect(keepAlive(client).ended).rejects.toMatchObject({ code: 'deadline-exceeded' });
  expect(await listed(client)).toEqual([]);
});

test('the listed cluster has the JSON that clients parse: block lists are arrays, never null', async () => {
  await using manager = await start();
  using client = clientOf(manager);
  await client.updateScheduler({ ...scheduler, features: ['schedule'], idc: 'a' });
  const row = await client.getScheduler(scheduler);
  expect(JSON.parse(Buffer.from(row.features).toString())).toEqual(['schedule']);
  expect(row.idc).toBe('a');
  expect(row.location).toBeUndefined();
  const cluster = row.schedulerCluster;
  expect(cluster?.id).toBe(1n);
  for (const config of [cluster?.clientConfig, cluster?.seedClientConfig]) {
    const { block_list } = JSON.parse(Buffer.from(config ?? []).toString());
    expect(block_list.task.download).toEqual({ applications: [], urls: [], tags: [], priorities: [] });
  }
  expect(JSON.parse(Buffer.from(cluster?.config ?? []).toString()).candidate_parent_limit).toBeGreaterThan(0);
});

test('registering again changes the row instead of adding one', async () => {
  await using manager = await start();
  using client = clientOf(manager);
  const { id } = await client.updateScheduler(scheduler);
  const again = await client.updateScheduler({ ...scheduler, port: 9002 });
  expect(again).toMatchObject({ id, port: 9002 });
});

test('what upstream cannot read is refused', async () => {
  await using manager = await start();
  using client = clientOf(manager);
  const wrong: Partial<typeof scheduler>[] = [{ ip: 'localhost' }, { port: 0 }, { hostname: '' }];
  for (const change of wrong) {
    await expect(client.updateScheduler({ ...scheduler, ...change })).rejects.toMatchObject({
      code: 'invalid-argument',
    });
  }
  await expect(client.updateScheduler({ ...scheduler, schedulerClusterId: 7n })).rejects.toMatchObject({
    code: 'not-found',
  });
  await expect(client.getScheduler(scheduler)).rejects.toMatchObject({ code: 'not-found' });
  await expect(keepAlive(client).ended).rejects.toMatchObject({ code: 'not-found' });
});

test('there are no applications: NOT_FOUND, as upstream answers', async () => {
  await using manager = await start();
  using client = clientOf(manager);
  await expect(client.listApplications({})).rejects.toMatchObject({ status: 5 });
});

test('seed peers register, live and leave', async () => {
  await using manager = await start();
  using client = clientOf(manager);
  const seed = { hostname: 'seed-1', ip: '10.1.2.4', seedPeerClusterId: 1n };
  await client.updateSeedPeer({ ...seed, type: 'super', port: 4000, downloadPort: 4005 });
  expect((await client.listSeedPeers({})).seedPeers).toEqual([]);
  const { messages } = keepAlive(client, {
    sourceType: SourceType.SEED_PEER_SOURCE,
    hostname: 'seed-1',
    ip: '10.1.2.4',
    clusterId: 1n,
  });
  await expect.poll(async () => (await client.listSeedPeers({})).seedPeers.length).toBe(1);
  expect(await client.getSeedPeer(seed)).toMatchObject({ state: 'active', downloadPort: 4005 });
  messages.end();
  await client.deleteSeedPeer(seed);
  await expect(client.getSeedPeer(seed)).rejects.toMatchObject({ code: 'not-found' });
});

test('after a restart its schedulers are listed at once, and no longer when they do not come back', async () => {
  await using first = await start();
  using client = clientOf(first);
  await client.updateScheduler(scheduler);
  keepAlive(client);
  await expect.poll(() => listed(client)).toEqual(['scheduler-1']);
  await first[Symbol.asyncDispose]();
  await using second = await start({ keepAliveTimeout: 500 });
  using again = clientOf(second);
  expect(await listed(again)).toEqual(['scheduler-1']);
  await expect.poll(() => listed(again), { timeout: 5000 }).toEqual([]);
});

test('health and metrics answer over HTTP', async () => {
  await using manager = await start({ metrics: ANY });
  const { rest, metrics } = manager.addresses;
  expect((await fetch(`http://127.0.0.1:${rest.port}/healthy`)).status).toBe(200);
  const text = await (await fetch(`http://127.0.0.1:${metrics?.port}/metrics`)).text();
  expect(text).toContain('dragonfly_manager_active_schedulers 0');
});
