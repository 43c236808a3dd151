import { taskId } from '@pantala/base';
import { ask, until } from '@pantala/testkit';
import { afterEach, describe, expect, test } from 'vitest';
import { copies, fileSha256, MIB, type Served, Stage, stored } from '../lib/stage.ts';
import { Dragonfly, type DragonflyOptions } from './lib/dragonfly.ts';
import { titled, whyNot } from './lib/installed.ts';

const LENGTH = 100 * MIB;
const MANAGER_PORT = 65_003;
const SCHEDULER_PORT = 8002;

const missing = whyNot('dfdaemon', 'dfget');
let stage: Stage;
const daemons: Dragonfly[] = [];

afterEach(async (context) => {
  if (context.task.result?.state === 'fail') {
    for (const daemon of daemons) process.stderr.write(`\n--- ${daemon.hostname}\n${daemon.log().slice(-4000)}`);
    for (const role of stage.swarm.roles) process.stderr.write(`\n--- ${role.name}\n${role.log().slice(-4000)}`);
  }
  await Promise.all(daemons.splice(0).map((daemon) => daemon[Symbol.asyncDispose]()));
  await stage[Symbol.asyncDispose]();
});

describe.skipIf(missing !== undefined)(titled('an unmodified Dragonfly peer', missing), () => {
  test('finds our scheduler by our manager, and downloads from our seed and then from our peer', async () => {
    stage = await Stage.start({ manager: true, peers: 1 });
    const manager = `${stage.swarm.manager?.place.address}:${MANAGER_PORT}`;
    const [first, second] = await start({ manager }, { manager });
    const served = stage.serve(LENGTH);
    await downloads(first, served);
    expect(await first.traffic()).toEqual({ origin: 0, peers: LENGTH });
    expect(copies(stage, served)).toBeLessThanOrEqual(1.02);

    expect((await stage.fetch(stage.swarm.peer, served.url)).sha256).toBe(served.content.sha256);
    await stage.swarm.seed.stop();
    await first.stop();
    await downloads(second, served);
    expect(await second.traffic()).toEqual({ origin: 0, peers: LENGTH });
    expect(copies(stage, served)).toBeLessThanOrEqual(1.02);
  });

  test('in one crowd with our peers: everybody at once, one copy from the origin', async () => {
    stage = await Stage.start({ peers: 2 });
    const scheduler = schedulerOf(stage);
    const [first, second] = await start({ scheduler }, { scheduler });
    const served = stage.serve(LENGTH);
    const [answers] = await Promise.all([
      Promise.all(stage.swarm.peers.map((peer) => stage.fetch(peer, served.url))),
      downloads(first, served),
      downloads(second, served),
    ]);
    for (const answer of answers) expect(answer).toMatchObject({ status: 200, sha256: served.content.sha256 });
    expect(copies(stage, served)).toBeLessThanOrEqual(1.02);
  });

  test('gives what it holds to our peer', async () => {
    stage = await Stage.start({ seeds: 0, peers: 1 });
    const [daemon] = await start({ scheduler: schedulerOf(stage) });
    const served = stage.serve(LENGTH);
    await downloads(daemon, served);
    const { peer } = stage.swarm;
    expect(await stage.fetch(peer, served.url)).toMatchObject({ status: 200, sha256: served.content.sha256 });
    const id = taskId({ url: served.url });
    expect(await stored(peer, id, { sha256: true })).toMatchObject({ complete: true, sha256: served.content.sha256 });
    expect(await peer.traffic()).toMatchObject({ origin: 0, peers: LENGTH });
    expect(copies(stage, served)).toBeLessThanOrEqual(1.02);
  });

  test('forms a swarm of its own kind around our scheduler', async () => {
    stage = await Stage.start({ seeds: 0, peers: 0 });
    const scheduler = schedulerOf(stage);
    const [first, second] = await start({ scheduler }, { scheduler });
    const served = stage.serve(LENGTH);
    await downloads(first, served);
    await downloads(second, served);
    expect(await first.traffic()).toEqual({ origin: LENGTH, peers: 0 });
    expect(await second.traffic()).toEqual({ origin: 0, peers: LENGTH });
    const crowded = stage.serve(LENGTH);
    await Promise.all([downloads(first, crowded), downloads(second, crowded)]);
    expect(copies(stage, crowded)).toBeLessThanOrEqual(1.02);
  });

  test('as a seed is triggered by our scheduler for its own kind and for our peer', async () => {
    stage = await Stage.start({ seeds: 0, peers: 1 });
    const scheduler = schedulerOf(stage);
    const [seed, child] = await start({ scheduler, seed: true }, { scheduler });
    const served = stage.serve(LENGTH);
    await downloads(child, served);
    expect(await seed.traffic()).toEqual({ origin: LENGTH, peers: 0 });
    expect(await child.traffic()).toEqual({ origin: 0, peers: LENGTH });

    const ours = stage.serve(LENGTH);
    expect((await stage.fetch(stage.swarm.peer, ours.url)).sha256).toBe(ours.content.sha256);
    expect(await stage.swarm.peer.traffic()).toMatchObject({ origin: 0, peers: LENGTH });
    for (const one of [served, ours]) expect(copies(stage, one)).toBeLessThanOrEqual(1.02);
  });

  test('downloads empty and tiny files, and checks a digest', async () => {
    stage = await Stage.start({ peers: 1 });
    const [daemon] = await start({ scheduler: schedulerOf(stage) });
    for (const length of [0, 1, 5 * MIB + 1]) {
      const served = stage.serve(length);
      await downloads(daemon, served, `--digest=sha256:${served.content.sha256}`);
      expect((await stage.fetch(stage.swarm.peer, served.url)).sha256).toBe(served.content.sha256);
      expect(copies(stage, served)).toBeLessThanOrEqual(1.02);
    }
  });

  test('whose parent of ours dies in the middle takes the rest from another of ours', async () => {
    stage = await Stage.start({ peers: 1, settings: { peer: { upload: { bandwidthLimit: '20MiB' } } } });
    const { peer } = stage.swarm;
    const [daemon] = await start({ scheduler: schedulerOf(stage) });
    const served = stage.serve(LENGTH);
    await stage.fetch(peer, served.url);
    const download = downloads(daemon, served);
    await until(async () => (await daemon.traffic()).peers > LENGTH / 10, { what: 'pieces arrive' });
    await peer.kill();
    await download;
    expect(copies(stage, served)).toBeLessThanOrEqual(1.02);
  });

  test('that dies in the middle is replaced: our peer takes the rest from elsewhere', async () => {
    stage = await Stage.start({ seeds: 0, peers: 1 });
    const [daemon] = await start({ scheduler: schedulerOf(stage), uploadRate: '20MiB' });
    const served = stage.serve(LENGTH);
    await downloads(daemon, served);
    const answer = stage.fetch(stage.swarm.peer, served.url);
    await until(async () => (await stage.swarm.peer.traffic()).peers > 0, { what: 'pieces arrive' });
    await daemon.kill();
    expect(await answer).toMatchObject({ status: 200, sha256: served.content.sha256 });
    expect(copies(stage, served)).toBeLessThanOrEqual(2);
  });

  test('gets right bytes when the scheduler is restarted in the middle', async () => {
    stage = await Stage.start({ peers: 1, settings: { peer: { upload: { bandwidthLimit: '20MiB' } } } });
    const [daemon] = await start({ scheduler: schedulerOf(stage) });
    const served = stage.serve(LENGTH);
    const download = downloads(daemon, served);
    await until(async () => (await daemon.traffic()).peers > LENGTH / 10, { what: 'pieces arrive' });
    await stage.swarm.scheduler.restart();
    await download;
    await until(async () => stage.swarm.scheduler.log().split(daemon.hostname).length > 2, {
      what: 'the daemon announces itself again',
    });
    const next = stage.serve(LENGTH);
    await downloads(daemon, next);
    expect(copies(stage, next)).toBeLessThanOrEqual(1.02);
  });

  test('has the news of our pieces for as long as a slow download takes', async () => {
    stage = await Stage.start({ peers: 0, settings: { peer: { upload: { bandwidthLimit: '8MiB' } } } });
    const [daemon] = await start({ scheduler: schedulerOf(stage) });
    const served = stage.serve(LENGTH);
    await downloads(daemon, served);
    expect(daemon.log()).not.toContain('Deadline');
    expect(copies(stage, served)).toBeLessThanOrEqual(1.02);
  });

  test('serves ranges by its own proxy from our seed', async () => {
    stage = await Stage.start({ peers: 0 });
    const [daemon] = await start({ scheduler: schedulerOf(stage) });
    const served = stage.serve(LENGTH);
    const first = 33 * MIB + 5;
    const answer = await ask(served.url, {
      proxy: daemon.proxy,
      deadline: 60_000,
      headers: { range: `bytes=${first}-${first + MIB - 1}` },
    });
    expect(answer).toMatchObject({ status: 206, sha256: served.content.sha256Of(first, first + MIB) });
    await downloads(daemon, served);
    expect(copies(stage, served)).toBeLessThanOrEqual(1.1);
  });
});

async function start<const T extends readonly DragonflyOptions[]>(
  ...options: T
): Promise<{ readonly [K in keyof T]: Dragonfly }> {
  const started = await Promise.all(options.map((one) => Dragonfly.start(one)));
  daemons.push(...started);
  return started as { readonly [K in keyof T]: Dragonfly };
}

async function downloads(daemon: Dragonfly, served: Served, ...args: readonly string[]): Promise<void> {
  const { code, output, said } = await daemon.get(served.url, ...args);
  expect(code, said).toBe(0);
  expect(await fileSha256(output)).toBe(served.content.sha256);
}

function schedulerOf({ swarm }: Stage): string {
  return `${swarm.scheduler.place.address}:${SCHEDULER_PORT}`;
}
