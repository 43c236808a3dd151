import { randomBytes, randomUUID } from 'node:crypto';
import { blockDigest, DIGEST_LENGTH } from '@pantala/base';
import { Content } from '@pantala/testkit';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type Lie, LyingPeer, refusal } from '../lib/lying-peer.ts';
import { BLOCK, MIB, Stage } from '../lib/stage.ts';
import { crowd, expectHonest, expectRight } from './lib.ts';

const LENGTH = 24 * MIB;
/** Each of two readers may have asked the origin for a megabyte while the liar kept it waiting. */
const COPIES_WITH_HEDGES = 1.1;

function flipped(bytes: Buffer, at: number): Buffer {
  bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
  return bytes;
}

/** Every way to lie in the two protocols. Those who hear of it only by news may never ask for anything. */
const LIES: readonly { readonly name: string; readonly lie: Lie; readonly mayBeUnasked?: boolean }[] = [
  { name: 'has none of what it says', lie: { answer: (asked) => refusal(asked) } },
  { name: 'never answers', lie: { answer: () => undefined } },
  {
    name: 'gives wrong bytes with the right digests',
    lie: { answer: (asked, peer) => peer.answerOf(asked, { data: flipped(peer.bytesOf(asked.run), 5) }) },
  },
  {
    name: 'gives wrong bytes with digests that fit them',
    lie: {
      answer: (asked, peer) => {
        const { first, count } = asked.run;
        const data = flipped(peer.bytesOf(asked.run), 7);
        const digests = peer.digestsOf(peer.geometry.pieceOfBlock(first));
        const start = peer.geometry.pieceBlocks(peer.geometry.pieceOfBlock(first)).first;
        for (let i = 0; i < count; i++) {
          blockDigest(data.subarray(i * BLOCK, (i + 1) * BLOCK)).copy(digests, (first - start + i) * DIGEST_LENGTH);
        }
        return peer.answerOf(asked, { data, digests });
      },
    },
  },
  {
    name: 'gives digests of nothing',
    lie: { answer: (asked, peer) => peer.answerOf(asked, { digests: randomBytes(256 * DIGEST_LENGTH) }) },
  },
  {
    name: 'never gives digests',
    lie: { answer: (asked, peer) => peer.answerOf({ ...asked, wantDigests: false }) },
  },
  {
    name: 'gives too few digests',
    lie: { answer: (asked, peer) => peer.answerOf(asked, { digests: randomBytes(3 * DIGEST_LENGTH) }) },
  },
  {
    name: 'gives fewer bytes than it says, and goes on with the next packet',
    lie: {
      answer: (asked, peer) =>
        peer.answerOf(asked, { data: peer.bytesOf(asked.run).subarray(100), bytes: BLOCK * asked.run.count }),
    },
  },
  {
    name: 'gives more bytes than the blocks have',
    lie: {
      answer: (asked, peer) =>
        peer.answerOf(asked, { data: Buffer.concat([peer.bytesOf(asked.run), Buffer.alloc(9)]) }),
    },
  },
  {
    name: 'says that 4 GiB follow',
    lie: { answer: (asked, peer) => peer.answerOf(asked, { bytes: 0xffff_ffff }) },
  },
  {
    name: 'gives other blocks than were asked for',
    lie: {
      answer: (asked, peer) => {
        const first = (asked.run.first + 256) % (peer.geometry.blockCount - asked.run.count);
        const claimed = { first, count: asked.run.count };
        return peer.answerOf(asked, { claimed, data: peer.bytesOf(claimed) });
      },
    },
  },
  {
    name: 'gives other blocks under the names of those that were asked for',
    lie: {
      answer: (asked, peer) => {
        const first = (asked.run.first + 256) % (peer.geometry.blockCount - asked.run.count);
        return peer.answerOf(asked, { data: peer.bytesOf({ first, count: asked.run.count }) });
      },
    },
  },
  {
    name: 'answers what nobody asked',
    lie: { answer: (asked, peer) => peer.answerOf({ ...asked, request: asked.request + 1_000_000 }) },
  },
  { name: 'answers with noise', lie: { answer: () => randomBytes(100_000) } },
  {
    name: 'has another content, and digests that fit it',
    lie: { content: new Content(LENGTH, randomUUID()) },
    // Where its digests contradict authority's it is nobody's parent.
    mayBeUnasked: true,
  },
  {
    name: 'holds blocks beyond the end',
    lie: {
      news: (truth, { blockCount }) => ({
        ...truth,
        held: [
          { first: 0, count: blockCount },
          { first: 4_000_000_000, count: 290_000_000 },
        ],
      }),
    },
    mayBeUnasked: true,
  },
  {
    name: 'says that the content is longer',
    lie: { news: (truth, { contentLength }) => ({ ...truth, contentLength: BigInt(contentLength + 1) }) },
    mayBeUnasked: true,
  },
  {
    name: 'says that pieces are of another length',
    lie: { news: (truth) => ({ ...truth, pieceLength: 12_345n }) },
    mayBeUnasked: true,
  },
  {
    name: 'assigns everything to everybody',
    lie: { news: (truth) => ({ ...truth, assigned: truth.held }), answer: (asked) => refusal(asked) },
  },
  {
    name: 'has everybody wait for others',
    lie: { news: (truth) => ({ ...truth, deferred: truth.held }), answer: () => undefined },
    mayBeUnasked: true,
  },
  { name: 'names a port where nobody is', lie: { describe: { tcpPort: 1 } }, mayBeUnasked: true },
];

let liar: LyingPeer | undefined;
afterEach(async () => {
  await liar?.[Symbol.asyncDispose]();
  liar = undefined;
});

describe('the only one that says to have the content is a peer that', () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await Stage.start({ seeds: 0, peers: 2 });
  });
  afterAll(async () => stage[Symbol.asyncDispose]());

  test.each(LIES)('$name', async ({ lie, mayBeUnasked = false }) => {
    const served = stage.serveBlob(LENGTH);
    liar = await LyingPeer.start(stage, served, lie);
    const answers = await crowd(stage, served);
    // Whoever was deceived twice sees an end, never wrong bytes; who asks again gets the right ones.
    if (lie.content === undefined) expectRight(answers, served);
    for (const answer of answers) expectHonest(answer, served);
    expectRight(await crowd(stage, served), served);
    if (!mayBeUnasked) expect(liar.asked).toBeGreaterThan(0);
    // Whoever was deceived fetches once more, from the origin alone: two readers, beside what was fetched before.
    expect(stage.origin.count(served.path).bytes / LENGTH).toBeLessThanOrEqual(lie.content === undefined ? 2.02 : 3.02);
  });
});

describe('one of several parents is a peer that', () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await Stage.start({ peers: 3 });
  });
  afterAll(async () => stage[Symbol.asyncDispose]());

  test.each(LIES)('$name', async ({ lie, mayBeUnasked = false }) => {
    const served = stage.serveBlob(LENGTH);
    const [first, ...others] = stage.swarm.peers;
    if (first === undefined) throw new Error('no peers');
    expectRight([await stage.fetch(first, served.url)], served);
    liar = await LyingPeer.start(stage, served, lie);
    expectRight(await Promise.all(others.map((peer) => stage.fetch(peer, served.url))), served);
    if (!mayBeUnasked) expect(liar.asked).toBeGreaterThan(0);
    expect(stage.origin.count(served.path).bytes / LENGTH).toBeLessThanOrEqual(COPIES_WITH_HEDGES);
  });
});
