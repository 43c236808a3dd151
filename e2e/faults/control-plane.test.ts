import { createClient, schedulerV2 } from '@pantala/api';
import { PantalaError, taskId } from '@pantala/base';
import { until } from '@pantala/testkit';
import { afterEach, expect, test } from 'vitest';
import { fileSha256, MIB, Stage } from '../lib/stage.ts';
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
  await until(() => knowsCopies(served.url), { what: 'the seed and two peers are known again, and who has the whole' });
  // The seed may still fetch what the readers got without it; the late one gets everything from others.
  const got = await stage.get(late, served.url);
  expect(await fileSha256(got.output)).toBe(served.content.sha256);
  // A probe of one byte tells it the length.
  expect(got.originBytes).toBeLessThanOrEqual(1);
  expect(got.peerBytes).toBeGreaterThanOrEqual(LENGTH);
});

/** Whether the scheduler knows three holders of a task, at least one of them with the whole. */
async function knowsCopies(url: string): Promise<boolean> {
  using client = createClient(schedulerV2.Scheduler, { host: stage.swarm.scheduler.place.address, port: 8002 });
  try {
    const { peerCount, state } = await client.statTask({ hostId: 'test', taskId: taskId({ url }) });
    return peerCount === 3 && state === 'Succeeded';
  } catch (thrown) {
    if (PantalaError.from(thrown).code === 'not-found') return false;
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
