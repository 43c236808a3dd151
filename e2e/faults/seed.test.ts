import { afterEach, describe, expect, test } from 'vitest';
import { MIB, Stage } from '../lib/stage.ts';
import { crowd, expectRight, ORIGIN_RATE, underway } from './lib.ts';

let stage: Stage;
afterEach(async () => stage[Symbol.asyncDispose]());

const LENGTH = 40 * MIB;
/** Where one seed dies, its unfinished part is fetched once more; ranges that peers took up meanwhile are no waste. */
const COPIES_WITH_ONE_DEATH = 2.02;

describe('the seed is killed', () => {
  test('before the first byte', async () => {
    stage = await Stage.start({ peers: 3 });
    await stage.swarm.seed.kill();
    const served = stage.serveBlob(LENGTH, { bytesPerSecond: 4 * ORIGIN_RATE });
    expectRight(await crowd(stage, served), served);
  });

  test.each([0.05, 0.3, 0.8])('after %d of the content', async (share) => {
    stage = await Stage.start({ peers: 3 });
    const served = stage.serveBlob(LENGTH, { bytesPerSecond: ORIGIN_RATE });
    const answers = crowd(stage, served);
    await underway(stage, served, share);
    await stage.swarm.seed.kill();
    expectRight(await answers, served);
    expect(stage.origin.count(served.path).bytes / LENGTH).toBeLessThanOrEqual(COPIES_WITH_ONE_DEATH);
  });

  test('after the last byte: whoever has it serves it', async () => {
    stage = await Stage.start({ peers: 3 });
    const served = stage.serveBlob(LENGTH);
    const [first, ...others] = stage.swarm.peers;
    if (first === undefined) throw new Error('no peers');
    expectRight([await stage.fetch(first, served.url)], served);
    await stage.swarm.seed.kill();
    expectRight(await Promise.all(others.map((peer) => stage.fetch(peer, served.url))), served);
    expect(stage.origin.count(served.path).bytes / LENGTH).toBeLessThanOrEqual(COPIES_WITH_ONE_DEATH);
  });

  test('and started again in the middle', async () => {
    stage = await Stage.start({ peers: 3 });
    const served = stage.serveBlob(LENGTH, { bytesPerSecond: ORIGIN_RATE });
    const answers = crowd(stage, served);
    await underway(stage, served, 0.4);
    await stage.swarm.seed.restart();
    expectRight(await answers, served);
    expect(stage.origin.count(served.path).bytes / LENGTH).toBeLessThanOrEqual(COPIES_WITH_ONE_DEATH);
  });
});
