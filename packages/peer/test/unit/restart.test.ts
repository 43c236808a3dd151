import { createClient, dfdaemonV2, schedulerV2 } from '@pantala/api';
import { silentLogger } from '@pantala/base';
import { startScheduler } from '@pantala/scheduler';
import { MetricsRegistry } from '@pantala/service';
import { Content, Origin, Scratch, until } from '@pantala/testkit';
import { expect, test } from 'vitest';
import type { Address, PeerConfig } from '../../src/index.ts';
import { testPeer } from '../support.ts';

const MIB = 1024 * 1024;

test('a restart listens on the same ports at once, has what it had, and takes leave of the scheduler', async () => {
  await using scratch = Scratch.create('restart');
  await using origin = await Origin.start({ host: '127.0.0.1' });
  const content = new Content(5 * MIB, 'restart');
  const url = origin.serve('/file', content);
  await using scheduler = await startScheduler(
    { listen: { host: '127.0.0.1', port: 0 } },
    { logger: silentLogger, metrics: new MetricsRegistry({ process: false }) },
  );
  using hosts = createClient(schedulerV2.Scheduler, scheduler.address);
  const announced = async () => (await hosts.listHosts({})).hosts.map(({ id }) => id);
  const options = { name: 'one', directory: scratch.path, schedulers: [scheduler.address as Address] };

  const first = await testPeer(options);
  const { proxy, grpc, pieces, health } = first.peer.addresses;
  const samePorts = (config: PeerConfig): PeerConfig => ({
    ...config,
    upload: { ...config.upload, grpc, pieces },
    proxy: { ...config.proxy, listen: { host: proxy.host, port: proxy.port } },
    health: { ...config.health, ...health },
  });
  await until(async () => (await announced()).length === 1, { what: 'the announcement' });
  const read = async () => {
    using client = createClient(dfdaemonV2.DfdaemonDownload, { path: first.peer.socketPath });
    for await (const { response } of client.downloadTask({ download: { url } })) {
      if (response.case === 'downloadTaskStartedResponse') return response.value.isFinished;
    }
    return undefined;
  };
  using client = createClient(dfdaemonV2.DfdaemonDownload, { path: first.peer.socketPath });
  for await (const _ of client.downloadTask({ download: { url } }));
  const stop = new AbortController();
  const traffic = (async () => {
    while (!stop.signal.aborted) await fetch(`http://127.0.0.1:${proxy.port}/healthy`).catch(() => undefined);
  })();
  let running = first;
  for (let round = 0; round < 2; round++) {
    await running[Symbol.asyncDispose]();
    expect(await announced()).toEqual([]);
    running = await testPeer({ ...options, change: samePorts });
    expect(running.peer.addresses.grpc.port).toBe(grpc.port);
    expect(await read()).toBe(true);
  }
  await running[Symbol.asyncDispose]();
  stop.abort();
  await traffic;
  expect(origin.count('/file').bytes).toBeLessThan(1.02 * content.length);
}, 60_000);
