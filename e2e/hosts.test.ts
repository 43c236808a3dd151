import { createClient, managerV2, schedulerV2 } from '@pantala/api';
import { until } from '@pantala/testkit';
import { afterEach, expect, test } from 'vitest';
import { copies, MIB, Stage } from './lib/stage.ts';

let stage: Stage;
afterEach(async () => stage[Symbol.asyncDispose]());

async function hosts(): Promise<number> {
  using client = createClient(schedulerV2.Scheduler, { host: stage.swarm.scheduler.place.address, port: 8002 });
  const { hosts: known } = await client.listHosts({});
  return known.length;
}

/** Addresses of the schedulers that the manager tells a peer. */
async function schedulers(): Promise<string[]> {
  const host = stage.swarm.manager?.place.address ?? '';
  using client = createClient(managerV2.Manager, { host, port: 65_003 });
  const { schedulers: known } = await client.listSchedulers({ hostname: 'peer', ip: '127.0.0.1' });
  return known.map(({ ip }) => ip);
}

test('an orderly stop takes a host off the list', async () => {
  stage = await Stage.start();
  await until(async () => (await hosts()) === 3, { what: 'three hosts are known' });
  await stage.swarm.peer.stop();
  await until(async () => (await hosts()) === 2, { what: 'two hosts are known' });
});

test('a killed host goes after its time', async () => {
  stage = await Stage.start({
    settings: {
      scheduler: { scheduler: { gc: { peerGCInterval: '1s', hostTTL: '3s' } } },
      peer: { scheduler: { announceInterval: '1s' } },
    },
  });
  await until(async () => (await hosts()) === 3, { what: 'three hosts are known' });
  await stage.swarm.peer.kill();
  await until(async () => (await hosts()) === 2, { what: 'two hosts are known' });
});

test('through a manager: peers find the scheduler, and a dead one is taken off the list', async () => {
  stage = await Stage.start({ manager: true });
  const served = stage.serve(12 * MIB);
  const { url, content } = served;
  for (const peer of stage.swarm.peers) {
    expect((await stage.fetch(peer, url)).sha256).toBe(content.sha256);
  }
  expect(copies(stage, served)).toBeLessThanOrEqual(1);
  expect(await schedulers()).toEqual([stage.swarm.scheduler.place.address]);
  await stage.swarm.scheduler.kill();
  // Long before peers would ask for the list again by themselves, which they do once a minute.
  await until(async () => (await schedulers()).length === 0, { what: 'nobody is sent to it', timeout: 10_000 });
  const later = stage.serve(5 * MIB);
  expect((await stage.fetch(stage.swarm.peer, later.url)).sha256).toBe(later.content.sha256);
});
