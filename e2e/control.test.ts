import { afterEach, expect, test } from 'vitest';
import { copies, MIB, Stage, wholeTask } from './lib/stage.ts';

let stage: Stage;
afterEach(async () => stage[Symbol.asyncDispose]());

test('an empty file and one of a single byte', async () => {
  stage = await Stage.start();
  for (const length of [0, 1]) {
    const { url, content } = stage.serve(length);
    for (const peer of stage.swarm.peers) {
      expect(await stage.fetch(peer, url)).toMatchObject({ status: 200, bytes: length, sha256: content.sha256 });
    }
  }
});

test('without any scheduler the origin serves', async () => {
  stage = await Stage.start();
  await stage.swarm.scheduler.kill();
  const { url, content } = stage.serve(20 * MIB);
  for (const peer of stage.swarm.peers) {
    expect(await stage.fetch(peer, url)).toMatchObject({ status: 200, whole: true, sha256: content.sha256 });
  }
});

test('without seeds a peer goes back to the source and the others get it from there', async () => {
  stage = await Stage.start({ seeds: 0, peers: 3 });
  const { url, content, path } = stage.serveBlob(20 * MIB);
  const answers = await Promise.all(stage.swarm.peers.map((peer) => stage.fetch(peer, url)));
  for (const answer of answers) expect(answer).toMatchObject({ status: 200, sha256: content.sha256 });
  expect(stage.origin.count(path).bytes).toBeLessThanOrEqual(3 * content.length);
  const before = stage.origin.count(path).bytes;
  await Promise.all(stage.swarm.peers.map((peer) => stage.fetch(peer, url)));
  expect(stage.origin.count(path).bytes).toBe(before);
});

test('several seeds: one of them is triggered once', async () => {
  stage = await Stage.start({ seeds: 3, peers: 4 });
  const served = stage.serve(30 * MIB);
  const { url, content } = served;
  const answers = await Promise.all(stage.swarm.peers.map((peer) => stage.fetch(peer, url)));
  for (const answer of answers) expect(answer.sha256).toBe(content.sha256);
  expect(copies(stage, served)).toBeLessThanOrEqual(1);
});

test('what a peer holds it still holds after a restart', async () => {
  stage = await Stage.start({ seeds: 0, peers: 2 });
  const { url, content, path } = stage.serve(20 * MIB);
  const { peer } = stage.swarm;
  await stage.fetch(peer, url);
  await wholeTask(peer, { url });
  await peer.stop();
  await peer.start();
  const before = stage.origin.count(path).bytes;
  expect((await stage.fetch(peer, url)).sha256).toBe(content.sha256);
  expect(stage.origin.count(path).bytes).toBe(before);
});

test('a restart under traffic listens again at once', async () => {
  stage = await Stage.start();
  const { peer } = stage.swarm;
  const { url } = stage.serve(50 * MIB);
  const cut = stage.fetch(peer, url).catch(() => undefined);
  await peer.kill();
  await cut;
  await peer.start();
  const next = stage.serve(MIB);
  expect((await stage.fetch(peer, next.url)).sha256).toBe(next.content.sha256);
});

test('a run without a fault asks the origin for nothing twice, and hedges nothing', async () => {
  stage = await Stage.start({ peers: 4 });
  const served = stage.serve(64 * MIB);
  const { url, content } = served;
  const answers = await Promise.all(stage.swarm.peers.map((peer) => stage.fetch(peer, url)));
  for (const answer of answers) expect(answer.sha256).toBe(content.sha256);
  expect(copies(stage, served)).toBeLessThanOrEqual(1);
  for (const node of stage.swarm.nodes) {
    const hedged = [...(await node.metrics())].filter(([name]) => name.includes('hedge'));
    expect(hedged.reduce((sum, [, value]) => sum + value, 0)).toBe(0);
  }
});
