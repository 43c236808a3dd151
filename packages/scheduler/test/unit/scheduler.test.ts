import { pantalaV1 } from '@pantala/api';
import { blockDigest, PantalaError, pieceDigest } from '@pantala/base';
import { describe, expect, test } from 'vitest';
import { announce, Download, HostStream, PIECE_LENGTH, SeedServer, schedulerClient, start, TASK } from './parties.ts';

const EMPTY = {};
const started = { case: 'downloadPeerStartedRequest', value: EMPTY } as const;
const finished = { case: 'downloadPeerFinishedRequest', value: EMPTY } as const;
const backToSourceStarted = { case: 'downloadPeerBackToSourceStartedRequest', value: EMPTY } as const;
const backToSourceFinished = { case: 'downloadPeerBackToSourceFinishedRequest', value: EMPTY } as const;

describe('AnnouncePeer', () => {
  test('back to source, then normal: each stream ends with OK after its finish', async () => {
    await using scheduler = await start();
    await announce(scheduler, 'a');
    await announce(scheduler, 'b');
    await using first = new Download(scheduler, 'a');
    first.register();
    expect((await first.answer())?.case).toBe('needBackToSourceResponse');
    first.say(backToSourceStarted);
    for (const number of [0, 1, 2]) first.piece(number);
    first.say(backToSourceFinished);
    expect(await first.answer()).toBeUndefined();

    await using second = new Download(scheduler, 'b');
    second.register();
    const answer = await second.answer();
    if (answer?.case !== 'normalTaskResponse') throw new Error(`no parents: ${answer?.case}`);
    expect(answer.value.candidateParents).toMatchObject([
      { id: 'a-peer', state: 'Succeeded', host: { id: 'a', ip: '127.0.0.1', port: 4000, downloadPort: 4005 } },
    ]);
    expect(answer.value.candidateParents[0]?.task).toMatchObject({
      id: TASK,
      contentLength: BigInt(3 * PIECE_LENGTH),
      pieceCount: 3,
    });
    second.say(started);
    second.piece(0, 'a-peer');
    second.say(finished);
    expect(await second.answer()).toBeUndefined();
  });

  test('reschedule: the bad parent is replaced, and "started" may be repeated', async () => {
    await using scheduler = await start({ scheduling: { candidateParentLimit: 1 } });
    for (const host of ['a', 'b', 'c']) await announce(scheduler, host);
    for (const host of ['a', 'b']) {
      await using copy = new Download(scheduler, host);
      copy.register({ needBackToSource: true });
      expect((await copy.answer())?.case).toBe('needBackToSourceResponse');
      copy.say(backToSourceStarted);
      copy.say(backToSourceFinished);
      expect(await copy.answer()).toBeUndefined();
    }
    await using child = new Download(scheduler, 'c');
    child.register();
    const [bad] = await child.parents();
    child.say(started);
    child.say({ case: 'reschedulePeerRequest', value: { candidateParents: [{ id: bad }] } });
    const [other] = await child.parents();
    expect(new Set([bad, other])).toEqual(new Set(['a-peer', 'b-peer']));
    child.say(started);
    child.say({ case: 'downloadPeerFailedRequest', value: EMPTY });
    expect(await child.answer()).toBeUndefined();
  });

  test('empty content and properties only', async () => {
    await using scheduler = await start();
    await announce(scheduler, 'a');
    await using empty = new Download(scheduler, 'a', 'e'.repeat(64));
    empty.register({ actualContentLength: 0n, actualPieceCount: 0n });
    expect((await empty.answer())?.case).toBe('emptyTaskResponse');
    empty.say(started);
    empty.say(finished);
    expect(await empty.answer()).toBeUndefined();
    await using properties = new Download(scheduler, 'a');
    properties.register({ metadataOnly: true });
    expect((await properties.answer())?.case).toBe('metadataOnlyResponse');
    properties.say(started);
    properties.say(finished);
    expect(await properties.answer()).toBeUndefined();
  });

  test('an unknown host is told so', async () => {
    await using scheduler = await start();
    await using download = new Download(scheduler, 'nobody');
    download.register();
    await expect(download.answer()).rejects.toMatchObject({ code: 'not-found' });
  });

  test('a peer that waits is answered when the stream of the one that fetched breaks', async () => {
    await using scheduler = await start();
    await announce(scheduler, 'a');
    await announce(scheduler, 'b');
    await using second = new Download(scheduler, 'b');
    {
      await using first = new Download(scheduler, 'a');
      first.register();
      expect((await first.answer())?.case).toBe('needBackToSourceResponse');
      second.register();
    }
    expect((await second.answer())?.case).toBe('needBackToSourceResponse');
  });

  test('one stream is one peer', async () => {
    await using scheduler = await start();
    await announce(scheduler, 'a');
    await using download = new Download(scheduler, 'a');
    download.register();
    await download.answer();
    Object.assign(download.ids, { peerId: 'another' });
    download.say(started);
    await expect(download.answer()).rejects.toMatchObject({ code: 'invalid-argument' });
  });
});

describe('seeds', () => {
  test('are triggered with the peer’s own credentials, and their copy is given out', async () => {
    await using scheduler = await start();
    await using seed = await SeedServer.start();
    await announce(scheduler, 'seed', { type: 1, port: seed.port });
    await announce(scheduler, 'a');
    await using child = new Download(scheduler, 'a');
    child.register({ outputPath: '/tmp/out' });
    const { value: asked } = await seed.asked[Symbol.asyncIterator]().next();
    expect(asked?.download).toMatchObject({
      url: 'http://origin.test/blob',
      requestHeader: { authorization: 'Bearer secret' },
      needBackToSource: true,
    });
    expect(asked?.download?.outputPath).toBeUndefined();
    await using fetch = new Download(scheduler, 'seed');
    fetch.register({ needBackToSource: true });
    expect((await fetch.answer())?.case).toBe('needBackToSourceResponse');
    fetch.say(backToSourceStarted);
    expect(await child.parents()).toEqual(['seed-peer']);
  });

  test('that fail are followed by the origin', async () => {
    await using scheduler = await start();
    await using seed = await SeedServer.start(() => new PantalaError('origin', 'the origin says no'));
    await announce(scheduler, 'seed', { type: 1, port: seed.port });
    await announce(scheduler, 'a');
    await using child = new Download(scheduler, 'a');
    child.register();
    expect((await child.answer())?.case).toBe('needBackToSourceResponse');
  });
});

describe('Converse', () => {
  test('tells a host that it is alone, and when another comes', async () => {
    await using scheduler = await start();
    await announce(scheduler, 'a');
    await using stream = new HostStream(scheduler, 'a');
    expect(await stream.alone()).toBe(true);
    await announce(scheduler, 'b');
    expect(await stream.alone()).toBe(false);
  });

  test('of a host that was not announced is refused', async () => {
    await using scheduler = await start();
    await using stream = new HostStream(scheduler, 'a');
    await expect(stream.answer()).rejects.toMatchObject({ code: 'failed-precondition' });
  });

  test('a second stream of a host takes the place of the first', async () => {
    await using scheduler = await start();
    await announce(scheduler, 'a');
    await using first = new HostStream(scheduler, 'a');
    expect((await first.answer())?.case).toBe('heldTasksWanted');
    await using second = new HostStream(scheduler, 'a');
    expect((await second.answer())?.case).toBe('heldTasksWanted');
    await expect(first.answer()).rejects.toMatchObject({ status: 10 });
    // The end of the first must not have taken the second with it.
    second.say({ case: 'watchDigests', value: { taskId: TASK } });
    second.say({ case: 'reportDigests', value: digests([0]) });
    expect((await second.answer())?.case).toBe('digestNews');
  });

  test('digests go from who fetched to who watches, and are void when a seed says otherwise', async () => {
    await using scheduler = await start();
    for (const host of ['a', 'b']) await announce(scheduler, host);
    await announce(scheduler, 'seed', { type: 1 });
    await using fetcher = new HostStream(scheduler, 'a');
    await using watcher = new HostStream(scheduler, 'b');
    await using seed = new HostStream(scheduler, 'seed');
    for (const stream of [fetcher, watcher, seed]) expect((await stream.answer())?.case).toBe('heldTasksWanted');
    fetcher.say({ case: 'reportDigests', value: digests([0], 'lie') });
    // A watch after a report that is under way may come first: both ways the news comes.
    watcher.say({ case: 'watchDigests', value: { taskId: TASK } });
    const first = await watcher.answer();
    if (first?.case !== 'digestNews') throw new Error(`news was expected, not ${first?.case}`);
    expect(first.value).toMatchObject({
      taskId: TASK,
      authority: pantalaV1.Authority.UNCONFIRMED,
      pieces: [{ number: 0 }],
    });
    seed.say({ case: 'reportDigests', value: digests([0]) });
    expect((await watcher.answer())?.case).toBe('digestsVoid');
    const second = await watcher.answer();
    if (second?.case !== 'digestNews') throw new Error(`news was expected, not ${second?.case}`);
    expect(second.value.authority).toBe(pantalaV1.Authority.CONFIRMED);
    expect(Buffer.from(second.value.pieces[0]?.digest ?? [])).toEqual(digestOf(0));
  });

  test('after a restart of the scheduler the held copies are parents again', async () => {
    const before = await start();
    const port = 'port' in before.address ? before.address.port : 0;
    await announce(before, 'a');
    const lost = new HostStream(before, 'a');
    expect((await lost.answer())?.case).toBe('heldTasksWanted');
    await before[Symbol.asyncDispose]();
    await expect(lost.answer()).rejects.toMatchObject({ code: 'unavailable' });
    await lost[Symbol.asyncDispose]();

    await using scheduler = await start({}, port);
    await announce(scheduler, 'a');
    await using stream = new HostStream(scheduler, 'a');
    expect((await stream.answer())?.case).toBe('heldTasksWanted');
    const held = {
      taskId: TASK,
      contentLength: BigInt(3 * PIECE_LENGTH),
      pieceLength: BigInt(PIECE_LENGTH),
      blockCount: (3 * PIECE_LENGTH) / 16_384,
      digest: `sha256:${TASK}`,
      peerId: 'a-peer',
      pieces: digests([0, 1, 2]).pieces,
    };
    stream.say({ case: 'heldTasks', value: { tasks: [held], completeList: true } });
    // The stream is read in order: once the watch is answered, the list has been taken.
    stream.say({ case: 'watchDigests', value: { taskId: TASK } });
    expect((await stream.answer())?.case).toBe('digestNews');
    await announce(scheduler, 'b');
    await using child = new Download(scheduler, 'b');
    child.register({ actualContentLength: undefined, actualPieceLength: undefined, actualPieceCount: undefined });
    expect(await child.parents()).toEqual(['a-peer']);
  });
});

describe('hosts and tasks', () => {
  test('are listed, described and deleted', async () => {
    await using scheduler = await start();
    await announce(scheduler, 'a');
    await announce(scheduler, 'seed', { type: 1 });
    using client = schedulerClient(scheduler);
    expect((await client.listHosts({})).hosts.map(({ id }) => id)).toEqual(['a', 'seed']);
    expect((await client.listHosts({ type: 1 })).hosts.map(({ id }) => id)).toEqual(['seed']);
    await expect(client.statTask({ hostId: 'a', taskId: TASK })).rejects.toMatchObject({ code: 'not-found' });
    await using download = new Download(scheduler, 'a');
    download.register({ needBackToSource: true });
    await download.answer();
    download.say(backToSourceStarted);
    download.say(backToSourceFinished);
    expect(await download.answer()).toBeUndefined();
    const ids = { hostId: 'a', taskId: TASK, peerId: 'a-peer' };
    expect(await client.statTask({ hostId: 'a', taskId: TASK })).toMatchObject({
      state: 'Succeeded',
      peerCount: 1,
      pieceCount: 3,
    });
    expect(await client.statPeer(ids)).toMatchObject({ id: 'a-peer', state: 'Succeeded', host: { id: 'a' } });
    await client.deleteTask({ hostId: 'a', taskId: TASK });
    await expect(client.statPeer(ids)).rejects.toMatchObject({ code: 'not-found' });
    await expect(client.deleteTask({ hostId: 'nobody', taskId: TASK })).rejects.toMatchObject({ code: 'not-found' });
    await client.deleteHost({ hostId: 'a' });
    expect((await client.listHosts({})).hosts.map(({ id }) => id)).toEqual(['seed']);
    await expect(client.preheatImage({ url: 'x' })).rejects.toMatchObject({ code: 'unimplemented' });
  });
});

function digestOf(piece: number, variant = ''): Buffer {
  return pieceDigest(blockDigest(Buffer.from(`${piece}${variant}`)));
}

function digests(numbers: readonly number[], variant = '') {
  return {
    taskId: TASK,
    peerId: 'peer',
    contentLength: BigInt(3 * PIECE_LENGTH),
    pieceLength: BigInt(PIECE_LENGTH),
    pieces: numbers.map((number) => ({ number, digest: digestOf(number, variant) })),
  };
}
