import { rename, writeFile } from 'node:fs/promises';
import { createClient, createServer, MessageQueue, managerV2, type Sent, serve } from '@pantala/api';
import { silentLogger } from '@pantala/base';
import { startManager } from '@pantala/manager';
import { MetricsRegistry } from '@pantala/service';
import { Scratch, until } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { type Address, defaultPeerConfig, type PeerConfig } from '../../src/index.ts';
import { SchedulerList } from '../../src/scheduler-list.ts';

const ANY = { host: '127.0.0.1', port: 0 };

function follow(change: Partial<PeerConfig>, dynconfigPath?: string) {
  let known: readonly Address[] = [];
  const list = new SchedulerList({
    config: { ...defaultPeerConfig('today'), refreshInterval: 20, ...change },
    name: { ip: '10.0.0.1', hostname: 'peer' },
    given: [],
    dynconfigPath,
    logger: silentLogger,
    changed: (addresses) => {
      known = addresses;
    },
  });
  return { list, known: () => known.map(({ host, port }) => `${host}:${port}`) };
}

test('those of the configuration are known at once', async () => {
  const { list, known } = follow({ schedulers: [{ host: '10.0.0.2', port: 8002 }] });
  await using _ = list;
  expect(known()).toEqual(['10.0.0.2:8002']);
});

test('a file is read again when it changes; a broken one changes nothing', async () => {
  await using scratch = Scratch.create('dynconfig');
  const path = scratch.join('dynconfig.yaml');
  const write = async (text: string) => {
    await writeFile(`${path}.new`, text);
    await rename(`${path}.new`, path);
  };
  await write('scheduler: {addrs: ["10.0.0.2:8002"]}');
  const { list, known } = follow({}, path);
  await using _ = list;
  await until(() => known().includes('10.0.0.2:8002'), { what: 'the first list' });
  await write('scheduler: {adrs: []}');
  await write('scheduler: {addrs: ["10.0.0.3:8002", "10.0.0.4:8002"]}');
  await until(() => known().length === 2, { what: 'the second list' });
  expect(known()).toEqual(['10.0.0.3:8002', '10.0.0.4:8002']);
});

test('the manager names the living schedulers; while it is away the last list stays', async () => {
  await using scratch = Scratch.create('list');
  // A port that is free for the manager, which comes later.
  const probe = await createServer({ address: ANY, services: [serve(managerV2.Manager, {})] });
  const address = probe.address as Address;
  await probe.stop();
  const { list, known } = follow({ manager: address });
  await using _ = list;
  const start = () =>
    startManager(
      { grpc: address, rest: ANY, database: scratch.join('manager.db') },
      { logger: silentLogger, metrics: new MetricsRegistry({ process: false }) },
    );
  const manager = await start();
  using client = createClient(managerV2.Manager, address);
  const member = { sourceType: managerV2.SourceType.SCHEDULER_SOURCE, hostname: 's', ip: '10.0.0.5' };
  const registration = { ...member, port: 8002, schedulerClusterId: 1n };
  await until(async () => (await client.updateScheduler(registration)).ip, { what: 'the registration' });
  const alive = new MessageQueue<Sent<typeof managerV2.KeepAliveRequestSchema>>();
  alive.push({ ...member, clusterId: 1n });
  const kept = client.keepAlive(alive).catch(() => undefined);
  await until(() => known().includes('10.0.0.5:8002'), { what: 'the list of the manager' });
  await manager[Symbol.asyncDispose]();
  await kept;
  expect(known()).toEqual(['10.0.0.5:8002']);
  await using _again = await start();
  expect(known()).toEqual(['10.0.0.5:8002']);
});
