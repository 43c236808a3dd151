import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer, type managerV2 as Manager, MessageQueue, managerV2, type RpcAddress, serve } from '@pantala/api';
import { describe, expect, test } from 'vitest';
import { clusterLimits, readDynconfig } from '../../src/dynconfig.ts';
import { announce, Download, start } from './parties.ts';

/** A manager that notes who registers and keeps alive. */
async function startManager(address: RpcAddress, config: object) {
  const registered = new MessageQueue<Manager.UpdateSchedulerRequest>();
  const beats = new MessageQueue<Manager.KeepAliveRequest>();
  const server = await createServer({
    address,
    services: [
      serve(managerV2.Manager, {
        updateScheduler: async (request) => {
          registered.push(request);
          return { id: 1n };
        },
        getScheduler: async () => ({
          id: 1n,
          schedulerCluster: { id: 1n, config: Buffer.from(JSON.stringify(config)) },
        }),
        keepAlive: async (requests) => {
          for await (const beat of requests) beats.push(beat);
          return {};
        },
      }),
    ],
  });
  return {
    address: server.address,
    registered: registered[Symbol.asyncIterator](),
    beats: beats[Symbol.asyncIterator](),
    [Symbol.asyncDispose]: () => server.stop(100),
  };
}

describe('the manager', () => {
  test('is told of the scheduler, hears its beats, and hears of it again after a restart', async () => {
    const first = await startManager({ host: '127.0.0.1', port: 0 }, {});
    await using scheduler = await start({
      hostname: 'here',
      manager: { address: first.address, keepAliveInterval: 20 },
    });
    const port = 'port' in scheduler.address ? scheduler.address.port : 0;
    expect((await first.registered.next()).value).toMatchObject({
      hostname: 'here',
      ip: '127.0.0.1',
      port,
      schedulerClusterId: 1n,
      features: ['schedule'],
    });
    for (let beat = 0; beat < 2; beat++) {
      expect((await first.beats.next()).value).toMatchObject({ hostname: 'here', ip: '127.0.0.1', clusterId: 1n });
    }
    await first[Symbol.asyncDispose]();
    await using second = await startManager(first.address, {});
    expect((await second.registered.next()).value).toMatchObject({ hostname: 'here', port });
    expect((await second.beats.next()).value).toMatchObject({ hostname: 'here' });
  });

  test('has the limits of the cluster', async () => {
    await using manager = await startManager({ host: '127.0.0.1', port: 0 }, { candidate_parent_limit: 1 });
    await using scheduler = await start({ manager: { address: manager.address } });
    // The first beat comes after the limits were taken.
    await manager.beats.next();
    for (const host of ['a', 'b', 'c']) await announce(scheduler, host);
    for (const host of ['a', 'b']) {
      await using copy = new Download(scheduler, host);
      copy.register({ needBackToSource: true });
      await copy.answer();
      copy.say({ case: 'downloadPeerBackToSourceStartedRequest', value: {} });
      copy.say({ case: 'downloadPeerBackToSourceFinishedRequest', value: {} });
      expect(await copy.answer()).toBeUndefined();
    }
    await using child = new Download(scheduler, 'c');
    child.register();
    expect(await child.parents()).toHaveLength(1);
  });

  test('sends limits as JSON; what is no number changes nothing', () => {
    expect(
      clusterLimits({ candidate_parent_limit: 4, filter_parent_limit: 'x' }, undefined, { load_limit: 9 }),
    ).toEqual({
      candidateParentLimit: 4,
      seedUploadLimit: 9,
    });
  });
});

describe('without a manager', () => {
  test('the limits come from a file, and a wrong key is named', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'scheduler-'));
    try {
      const path = join(directory, 'dynconfig.yaml');
      await writeFile(
        path,
        'schedulerClusterConfig:\n  candidateParentLimit: 5\n  filterParentLimit: 40\nseedPeerClusterConfig:\n  loadLimit: 300\n',
      );
      expect(readDynconfig(path)).toEqual({ candidateParentLimit: 5, filterParentLimit: 40, seedUploadLimit: 300 });
      await writeFile(path, 'schedulerClusterConfig:\n  candidateParentLimits: 5\n');
      expect(() => readDynconfig(path)).toThrow(/candidateParentLimit/);
    } finally {
      await rm(directory, { recursive: true });
    }
  });
});
