import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Content } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FULL, MIB, type Served, Stage, stored } from '../lib/stage.ts';
import { expectHonest, expectRight } from './lib.ts';

const KILLS = FULL ? 60 : 6;
const LENGTH = 60 * MIB;
/** The whole of this length is compared with its digest within such a time after the last byte. */
const LATEST = 60;

describe('a peer killed around the moment when a blob’s whole is compared with its digest', () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await Stage.start({ seeds: 0, peers: 1 });
  });
  afterAll(async () => stage[Symbol.asyncDispose]());

  /** Under the name of one content, the origin gives another one of the same length. */
  function serveWrong(): Served & { readonly correct: () => void } {
    const content = new Content(LENGTH, randomUUID());
    const path = `/v2/e2e/blobs/sha256:${content.sha256}`;
    const url = stage.origin.serve(path, new Content(LENGTH, randomUUID()));
    return { path, content, url, correct: () => void stage.origin.serve(path, content) };
  }

  test.each(Array.from({ length: KILLS }, (_, number) => number))('kill %i', async (number) => {
    const { peer } = stage.swarm;
    const served = serveWrong();
    const ended = stage.fetch(peer, served.url).catch(() => undefined);
    while (stage.origin.count(served.path).bytes < LENGTH) await sleep(1);
    await sleep((number / KILLS) * LATEST);
    await peer.restart();
    expectHonest(await ended, served);
    // From here on the origin is right. Whatever the peer kept of the wrong bytes must not look like the whole.
    served.correct();
    const id = served.content.sha256;
    const kept = await stored(peer, id);
    if (kept?.complete === true) expect((await stored(peer, id, { sha256: true }))?.sha256).toBe(id);
    expectHonest(await stage.fetch(peer, served.url).catch(() => undefined), served);
    expectRight([await stage.fetch(peer, served.url)], served);
  });
});
