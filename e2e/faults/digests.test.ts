import { loopbackPlace, Origin, Relay } from '@pantala/testkit';
import { afterEach, test } from 'vitest';
import { MIB, Stage } from '../lib/stage.ts';
import { expectHonest, expectRight, underway } from './lib.ts';

let stage: Stage;
let relay: Relay | undefined;
afterEach(async () => {
  await stage[Symbol.asyncDispose]();
  await relay?.[Symbol.asyncDispose]();
});

const LENGTH = 24 * MIB;

/** Node 1 gets wrong bytes from the origin and, in good faith, fixes wrong digests for everybody. */
async function withLyingFetcher(seeds: number): Promise<void> {
  const origin = await Origin.start({ host: loopbackPlace().address });
  const target = new URL(origin.url);
  relay = await Relay.start({ host: target.hostname, port: Number(target.port) }, { host: loopbackPlace().address });
  relay.fault = { kind: 'corrupt', every: 100_000 };
  const redirect = `${relay.host}:${relay.port}`;
  stage = await Stage.start({
    origin,
    seeds,
    peers: 3,
    settings: { nodes: { node1: { proxy: { rules: [{ regex: '.*', redirect }] } } } },
  });
}

test('a first fetcher that lies about digests deceives nobody', async () => {
  await withLyingFetcher(0);
  const served = stage.serveBlob(LENGTH);
  const [liar, ...others] = stage.swarm.peers;
  if (liar === undefined) throw new Error('no peers');
  const lie = await stage.fetch(liar, served.url).catch(() => undefined);
  expectHonest(lie, served);
  expectRight(await Promise.all(others.map((peer) => stage.fetch(peer, served.url))), served);
});

test('the same while the others already ask', async () => {
  await withLyingFetcher(0);
  const served = stage.serveBlob(LENGTH);
  const [lie, ...right] = await Promise.all(
    stage.swarm.peers.map((peer) => stage.fetch(peer, served.url).catch(() => undefined)),
  );
  expectHonest(lie, served);
  for (const answer of right) expectHonest(answer, served);
  const again = await Promise.all(stage.swarm.peers.slice(1).map((peer) => stage.fetch(peer, served.url)));
  expectRight(again, served);
});

test('with a seed, a peer’s own wrong fetch counts for nothing', async () => {
  await withLyingFetcher(1);
  const served = stage.serveBlob(LENGTH);
  // The seed is sent to the origin of who asks first: that is an honest one here.
  const [liar, ...others] = stage.swarm.peers;
  if (liar === undefined) throw new Error('no peers');
  const right = Promise.all(others.map((peer) => stage.fetch(peer, served.url)));
  await underway(stage, served, 0.05);
  const lie = await stage.fetch(liar, served.url).catch(() => undefined);
  expectHonest(lie, served);
  expectRight(await right, served);
});
