import { createClient, schedulerV2 } from '@pantala/api';
import { PantalaError, taskId } from '@pantala/base';
import { until } from '@pantala/testkit';
import { afterEach, expect, test } from 'vitest';
import { MIB, Stage } from '../lib/stage.ts';
import { crowd, expectRight, ORIGIN_RATE, underway } from './lib.ts';

let stage: Stage;
afterEach(async () => stage[Symbol.asyncDispose]());

const LENGTH = 40 * MIB;

test.each([0.01, 0.5])('the scheduler is killed after %d of the content', async (share) => {
  stage = await Stage.start({ peers: 3 });
  const served = stage.serveBlob(LENGTH, { bytesPerSecond: ORIGIN_RATE });
  const answers = crowd(stage, served);
  await underway(stage, served, share);
  await stage.swarm.scheduler.kill();
  expectRight(await answers, served);
});

test('the scheduler is restarted in the middle and soon knows again who holds what', async () => {
  stage = await Stage.start({ peers: 3 });
  const served = stage.serveBlob(LENGTH, { bytesPerSecond: ORIGIN_RATE });
  const [late, ...early] = stage.swarm.peers;
  const answers = Promise.all(early.map((peer) => stage.fetch(peer, served.url)));
  await underway(stage, served, 0.5);
  await stage.swarm.scheduler.restart();
  expectRight(await answers, served);
  if (late === undefined) throw new Error('no peers');
  await until(async () => (await knownHolders(served.url)) === 3, { what: 'the seed and two peers are known again' });
  const before = stage.origin.count(served.path).bytes;
  expectRight([await stage.fetch(late, served.url)], served);
  // A probe of one byte tells it the length.
  expect(stage.origin.count(served.path).bytes - before).toBeLessThanOrEqual(64);
});

/** Peers that the scheduler knows of a task. */
async function knownHolders(url: string): Promise<number> {
  using client = createClient(schedulerV2.Scheduler, { host: stage.swarm.scheduler.place.address, port: 8002 });
  try {
    return (await client.statTask({ hostId: 'test', taskId: taskId({ url }) })).peerCount;
  } catch (thrown) {
    if (PantalaError.from(thrown).code === 'not-found') return 0;
    throw thrown;
  }
}

test('manager and scheduler are restarted, one after the other', async () => {
  stage = await Stage.start({ manager: true, peers: 2 });
  const served = stage.serveBlob(LENGTH, { bytesPerSecond: ORIGIN_RATE });
  const answers = crowd(stage, served);
  await underway(stage, served, 0.2);
  await stage.swarm.manager?.restart();
  await underway(stage, served, 0.5);
  await stage.swarm.scheduler.restart();
  expectRight(await answers, served);
  const next = stage.serveBlob(5 * MIB);
  expectRight(await crowd(stage, next), next);
});
