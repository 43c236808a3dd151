import { taskId } from '@pantala/base';
import { type Node, until } from '@pantala/testkit';
import { afterEach, describe, expect, test } from 'vitest';
import { schedulerClient } from './lib/announced-peer.ts';
import { DragonflyPeer, type DragonflyPeerOptions, downloadAsDragonfly } from './lib/dragonfly-peer.ts';
import { fileSha256, MIB, type Served, Stage, stored } from './lib/stage.ts';

let stage: Stage;
let parent: DragonflyPeer | undefined;
afterEach(async () => {
  await stage[Symbol.asyncDispose]();
  await parent?.[Symbol.asyncDispose]();
  parent = undefined;
});

const LENGTH = 18 * MIB + 777;
/** What the origin may give besides: one byte for each question how long it is. */
const PROBES = 64;

async function withParent(served: Served, options: DragonflyPeerOptions = {}): Promise<DragonflyPeer> {
  parent = await DragonflyPeer.start(stage, served, options);
  return parent;
}

function flipped(bytes: Buffer): Buffer {
  bytes[1000] = (bytes[1000] ?? 0) ^ 1;
  return bytes;
}

describe('a Dragonfly peer as the parent of ours', () => {
  test.each(['a blob', 'a file'])('gives %s', async (kind) => {
    stage = await Stage.start({ seeds: 0, peers: 1 });
    const served = kind === 'a blob' ? stage.serveBlob(LENGTH) : stage.serve(LENGTH);
    const { pieceCount } = await withParent(served);
    const answer = await stage.fetch(stage.swarm.peer, served.url);
    expect(answer).toMatchObject({ status: 200, whole: true, sha256: served.content.sha256 });
    expect(stage.origin.count(served.path).bytes).toBeLessThanOrEqual(PROBES);
    expect(parent?.given).toBe(pieceCount);
    expect((await stage.swarm.peer.traffic()).peers).toBe(LENGTH);
  });

  test('gives a range of a file, in whole pieces', async () => {
    stage = await Stage.start({ seeds: 0, peers: 1 });
    const served = stage.serve(LENGTH);
    await withParent(served);
    const answer = await stage.fetch(stage.swarm.peer, served.url, { headers: { range: 'bytes=9000000-9099999' } });
    expect(answer).toMatchObject({ status: 206, sha256: served.content.sha256Of(9_000_000, 9_100_000) });
    expect(stage.origin.count(served.path).bytes).toBeLessThanOrEqual(PROBES);
  });

  test('a blob’s bytes are nobody’s before the whole is checked', async () => {
    stage = await Stage.start({ seeds: 0, peers: 1 });
    const served = stage.serveBlob(LENGTH);
    const released = Promise.withResolvers<void>();
    const last = Math.floor(LENGTH / (4 * MIB));
    const { pieceCount } = await withParent(served, {
      gate: async (piece) => (piece === last ? released.promise : undefined),
    });
    const { peer } = stage.swarm;
    const got = stage.get(peer, served.url, '--disable-back-to-source');
    await until(() => parent?.given === pieceCount - 1, { what: 'all pieces but the last are given' });
    expect((await stored(peer, taskId({ url: served.url })))?.heldBytes).toBe(0);
    released.resolve();
    const { output, originBytes } = await got;
    expect(await fileSha256(output)).toBe(served.content.sha256);
    expect(originBytes).toBe(0);
  });

  test.each<{ readonly name: string; readonly options: DragonflyPeerOptions }>([
    { name: 'wrong bytes with their right CRC-32', options: { give: (_, bytes) => flipped(bytes) } },
    { name: 'bytes that do not have their CRC-32', options: { wrongSum: true } },
    { name: 'too little', options: { give: (_, bytes) => bytes.subarray(0, 100_000) } },
    { name: 'pieces that it lacks', options: { lacksAll: true } },
    {
      name: 'lengths that pieces do not have',
      options: { tell: ({ length, ...rest }) => ({ ...rest, length: length + 1n }) },
    },
    {
      name: 'offsets that pieces do not have',
      options: { tell: ({ offset, ...rest }) => ({ ...rest, offset: offset + 4096n }) },
    },
    {
      name: 'numbers beyond the end',
      options: { tell: ({ number, ...rest }) => ({ ...rest, number: number + 1_000_000 }) },
    },
    {
      name: 'lengths beyond all memory',
      options: { tell: (truth) => ({ ...truth, length: 0xffff_ffff_ffff_ffffn }) },
    },
  ])('deceives nobody by $name', async ({ options }) => {
    stage = await Stage.start({ seeds: 0, peers: 2 });
    const served = stage.serveBlob(LENGTH);
    await withParent(served, options);
    const answers = await Promise.all(stage.swarm.peers.map((peer) => stage.fetch(peer, served.url)));
    for (const answer of answers) {
      expect(answer).toMatchObject({ status: 200, whole: true, sha256: served.content.sha256 });
    }
  });
});

describe('a Dragonfly peer as the child of ours', () => {
  test('gets every piece, with its CRC-32', async () => {
    stage = await Stage.start({ seeds: 0, peers: 1 });
    const served = stage.serve(LENGTH);
    const { peer } = stage.swarm;
    await stage.fetch(peer, served.url);
    const id = taskId({ url: served.url });
    const content = await downloadAsDragonfly(peer.place.address, id, [0, 1, 2, 3, 4]);
    expect(content.equals(served.content.slice(0, LENGTH))).toBe(true);
  });

  test('gets pieces as they come, from a seed that the scheduler names', async () => {
    stage = await Stage.start({ seeds: 1, peers: 0 });
    const served = stage.serveBlob(LENGTH, { bytesPerSecond: 12 * MIB });
    const id = taskId({ url: served.url });
    const found = await parentsOf(stage, served.url, id);
    expect(found).toEqual([stage.swarm.seed.place.address]);
    const content = await downloadAsDragonfly(stage.swarm.seed.place.address, id, [4, 2, 0, 1, 3]);
    expect(content.equals(served.content.slice(0, LENGTH))).toBe(true);
    await expectComplete(stage.swarm.seed, id);
  });
});

/** Addresses of the parents that the scheduler names to a Dragonfly peer. */
async function parentsOf(on: Stage, url: string, id: string): Promise<string[]> {
  using client = schedulerClient(on);
  const host = { id: '127.0.0.1-child', hostname: 'child', ip: '127.0.0.1', port: 4000, downloadPort: 4005, type: 0 };
  await client.announceHost({ host });
  const ids = { hostId: host.id, taskId: id, peerId: 'child-peer' };
  async function* requests() {
    yield {
      ...ids,
      request: { case: 'registerPeerRequest' as const, value: { download: { url, requestHeader: {} } } },
    };
    await released.promise;
  }
  const released = Promise.withResolvers<void>();
  try {
    for await (const { response } of client.announcePeer(requests(), { deadline: 60_000 })) {
      if (response.case !== 'normalTaskResponse') throw new Error(`parents were expected, not ${response.case}`);
      return response.value.candidateParents.map((candidate) => candidate.host?.ip ?? '');
    }
    throw new Error('the scheduler said nothing');
  } finally {
    released.resolve();
  }
}

async function expectComplete(node: Node, id: string): Promise<void> {
  await until(async () => (await stored(node, id))?.complete, { what: `${node.name} holds all of it` });
}
