import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FULL, MIB, Stage } from '../lib/stage.ts';
import { crowd, DEADLINE, expectHonest, expectRight, ORIGIN_RATE } from './lib.ts';

const KILLS = FULL ? 300 : 14;
const LENGTH = 12 * MIB;
/** Most of a transfer of this length from this origin. */
const LATEST = 900;

describe('SIGKILL of any role at any time', () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await Stage.start({ peers: 3, manager: true });
  });
  afterAll(async () => stage[Symbol.asyncDispose]());

  test.each(Array.from({ length: KILLS }, (_, number) => number))('kill %i', async (number) => {
    const { roles } = stage.swarm;
    const chance = createHash('sha256').update(`kill ${number}`).digest();
    const victim = roles[number % roles.length];
    if (victim === undefined) throw new Error('no roles');
    const served = stage.serveBlob(LENGTH, { bytesPerSecond: ORIGIN_RATE });
    const asks = stage.swarm.peers.map((peer) =>
      stage.fetch(peer, served.url, { deadline: DEADLINE }).catch(() => undefined),
    );
    await sleep((chance.readUInt16BE(0) / 0xffff) * LATEST);
    await victim.restart();
    const answers = await Promise.all(asks);
    for (const [index, answer] of answers.entries()) {
      expectHonest(answer, served);
      // Only those whose own peer was killed may see an end.
      if (stage.swarm.peers[index] !== victim && answer !== undefined) expectRight([answer], served);
      if (stage.swarm.peers[index] !== victim) expect(answer).toBeDefined();
    }
    expectRight(await crowd(stage, served), served);
  });
});
