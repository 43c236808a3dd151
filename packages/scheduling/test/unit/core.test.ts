import { describe, expect, test } from 'vitest';
import { only, TASK, types, World } from './world.ts';

describe('a Dragonfly peer', () => {
  test('is told to fetch from the origin when it is the first and there is no seed', () => {
    const world = new World();
    world.host('a');
    expect(types(world.register('a'))).toEqual(['needBackToSource']);
  });

  test('waits for the one that fetches, and is given it as soon as it has started', () => {
    const world = new World();
    world.host('a');
    world.host('b');
    world.register('a');
    expect(world.register('b')).toEqual([]);
    const [sent] = only(world.peer('a', 'backToSourceStarted'), 'sendParents');
    expect(sent).toMatchObject({ peerId: 'b-peer', parents: [{ peerId: 'a-peer', hostId: 'a' }] });
  });

  test('takes over when the one that fetches fails', () => {
    const world = new World();
    world.host('a');
    world.host('b');
    world.register('a');
    world.register('b');
    const decided = world.peer('a', 'backToSourceFailed');
    expect(types(decided)).toEqual(['closeStream', 'needBackToSource']);
    expect(decided[1]).toMatchObject({ peerId: 'b-peer' });
  });

  test('has a seed triggered once, and waits for it', () => {
    const world = new World();
    world.host('seed', { seed: true });
    for (const host of ['a', 'b', 'c']) world.host(host);
    expect(types(world.register('a'))).toEqual(['triggerSeed']);
    expect(world.register('b')).toEqual([]);
    world.register('seed', { needBackToSource: true });
    const woken = world.peer('seed', 'backToSourceStarted');
    expect(only(woken, 'sendParents').map(({ peerId }) => peerId)).toEqual(['a-peer', 'b-peer']);
    expect(types(world.register('c'))).toEqual(['sendParents']);
    expect(only(world.decisions, 'triggerSeed')).toHaveLength(1);
  });

  test('fetches itself when the seed gives no sign within its patience', () => {
    const world = new World({ patienceMs: 2_000 });
    world.host('seed', { seed: true });
    world.host('a');
    world.host('b');
    world.register('a');
    world.register('b');
    expect(world.pass(1_999)).toEqual([]);
    expect(only(world.pass(1_000), 'needBackToSource').map(({ peerId }) => peerId)).toEqual(['a-peer']);
  });

  test('gets another seed when the first fails, then the origin', () => {
    const world = new World();
    for (const seed of ['seed-1', 'seed-2', 'seed-3']) world.host(seed, { seed: true });
    world.host('a');
    const [first] = only(world.register('a'), 'triggerSeed');
    const fail = (seedHostId: string) =>
      world.send({ type: 'seedTriggerEnded', taskId: TASK, seedHostId, error: 'origin' });
    const [second] = only(fail(first?.seedHostId ?? ''), 'triggerSeed');
    expect(second?.seedHostId).not.toBe(first?.seedHostId);
    expect(types(fail(second?.seedHostId ?? ''))).toEqual(['needBackToSource']);
  });

  test('is not given a bad parent again, and its stream ends after its finish', () => {
    const world = new World();
    for (const host of ['a', 'b', 'c']) world.host(host);
    world.register('a');
    world.peer('a', 'backToSourceStarted');
    world.peer('a', 'backToSourceFinished');
    const [first] = only(world.register('b'), 'sendParents');
    expect(first?.parents).toEqual([{ peerId: 'a-peer', hostId: 'a' }]);
    world.peer('b', 'peerStarted');
    const again = world.send({
      type: 'rescheduled',
      hostId: 'b',
      taskId: TASK,
      peerId: 'b-peer',
      badParentIds: ['a-peer'],
    });
    expect(only(again, 'sendParents')).toEqual([]);
    expect(only(world.pass(5_000), 'needBackToSource')).toHaveLength(1);
    expect(types(world.peer('b', 'peerFinished'))).toEqual(['closeStream']);
    expect(world.core.peer(TASK, 'b-peer')?.state).toBe('Succeeded');
  });

  test('that may not go to the origin is told in the end that nobody has it', () => {
    const world = new World({ giveUpMs: 30_000 });
    world.host('a');
    expect(world.register('a', { disableBackToSource: true })).toEqual([]);
    const [failed] = only(world.pass(32_000), 'failPeer');
    expect(failed).toMatchObject({ peerId: 'a-peer', code: 'failed-precondition' });
  });

  test('of an unknown host is refused', () => {
    expect(new World().register('nobody')).toMatchObject([{ type: 'failPeer', code: 'not-found' }]);
  });

  test('learns at once that the content is empty, or that only properties were asked for', () => {
    const world = new World();
    world.host('a');
    world.host('b');
    const empty = { contentLength: 0, pieceLength: undefined, digest: undefined };
    expect(types(world.register('a', { taskId: 'empty', facts: empty }))).toEqual(['emptyTask']);
    expect(types(world.register('b', { metadataOnly: true }))).toEqual(['metadataOnly']);
  });

  test('waits for a slot, and gets it when another child is done', () => {
    const world = new World({ uploadLimit: 1, backToSourceCount: 1 });
    for (const host of ['a', 'b', 'c']) world.host(host);
    world.register('a');
    world.peer('a', 'backToSourceStarted');
    expect(types(world.register('b'))).toEqual(['sendParents']);
    expect(world.register('c')).toEqual([]);
    expect(only(world.peer('b', 'peerFailed'), 'sendParents')).toMatchObject([{ peerId: 'c-peer' }]);
  });
});

describe('a Pantala peer', () => {
  test('is given a seed before that has registered, and the seed keeps its children when it does', () => {
    const world = new World();
    world.host('seed', { seed: true, pantala: true });
    world.host('a', { pantala: true });
    const decided = world.register('a');
    expect(types(decided)).toEqual(['triggerSeed', 'sendParents']);
    expect(only(decided, 'sendParents')[0]?.parents).toEqual([{ peerId: 'pending:seed', hostId: 'seed' }]);
    world.register('seed', { needBackToSource: true });
    expect([...(world.core.peer(TASK, 'a-peer')?.parents ?? [])].map((parent) => parent.id)).toEqual(['seed-peer']);
    expect(world.core.counts).toMatchObject({ peers: 2, edges: 1 });
  });

  test('is told of peers that came later, once they are gathered', () => {
    const world = new World();
    world.host('seed', { seed: true, pantala: true });
    for (const host of ['a', 'b', 'c']) world.host(host, { pantala: true });
    world.register('a');
    world.register('b');
    world.register('c');
    const pushed = only(world.pass(100), 'sendParents');
    const toA = pushed.filter(({ peerId }) => peerId === 'a-peer');
    expect(toA).toHaveLength(1);
    expect(toA[0]?.parents.map(({ hostId }) => hostId).sort()).toEqual(['b', 'c', 'seed']);
  });

  test('takes over in the middle when the last source is gone', () => {
    const world = new World();
    for (const host of ['a', 'b', 'c']) world.host(host, { pantala: true });
    expect(types(world.register('a'))).toEqual(['needBackToSource']);
    world.peer('a', 'backToSourceStarted');
    for (const host of ['b', 'c']) {
      world.register(host);
      world.peer(host, 'peerStarted');
    }
    world.piece('c', 'a');
    world.pass(100);
    const decided = world.send({ type: 'hostDeleted', hostId: 'a' });
    expect(only(decided, 'needBackToSource').map(({ peerId }) => peerId)).toEqual(['c-peer']);
  });

  test('is given other parents when the seed dies, and the task another seed', () => {
    const world = new World();
    for (const seed of ['seed-1', 'seed-2']) world.host(seed, { seed: true, pantala: true });
    for (const host of ['a', 'b']) world.host(host, { pantala: true });
    const [trigger] = only(world.register('a'), 'triggerSeed');
    const seed = trigger?.seedHostId ?? '';
    world.register(seed, { needBackToSource: true });
    world.register('b');
    world.pass(100);
    world.peer(seed, 'streamClosed');
    world.send({ type: 'hostDisconnected', hostId: seed });
    const after = world.send({ type: 'seedTriggerEnded', taskId: TASK, seedHostId: seed, error: 'unavailable' });
    const [next] = only(after, 'triggerSeed');
    expect(next?.seedHostId).not.toBe(seed);
    const pushed = only(world.pass(100), 'sendParents');
    expect(pushed.length).toBeGreaterThan(0);
    for (const { parents } of pushed) expect(parents.map(({ hostId }) => hostId)).not.toContain(seed);
  });

  test('that reaches nobody who has the task may fetch it at once', () => {
    const world = new World();
    for (const host of ['seed', 'b', 'c']) world.host(host, { pantala: true, seed: host === 'seed' });
    const [offered] = only(world.register('b'), 'sendParents');
    const lost = (hostId: string, badParentIds: readonly string[]) =>
      world.send({ type: 'rescheduled', hostId, taskId: TASK, peerId: `${hostId}-peer`, badParentIds });
    const seeds = (offered?.parents ?? []).map(({ peerId }) => peerId);
    expect(types(lost('b', seeds))).toContain('needBackToSource');
    // The next one has that one.
    world.register('c');
    const answers = lost('c', seeds);
    expect(only(answers, 'needBackToSource')).toEqual([]);
    expect(only(answers, 'sendParents').at(-1)?.parents).toEqual([{ peerId: 'b-peer', hostId: 'b' }]);
  });

  test('that wants a small range has the seed triggered with the range; the whole is asked for later', () => {
    const world = new World();
    world.host('seed', { seed: true, pantala: true });
    world.host('a', { pantala: true });
    world.host('b', { pantala: true });
    const range = { start: 0, length: 4096 };
    expect(only(world.register('a', { range }), 'triggerSeed')).toMatchObject([{ range }]);
    expect(only(world.register('b', { range: { start: 1 << 20, length: 4096 } }), 'triggerSeed')).toEqual([]);
    expect(only(world.register('a'), 'triggerSeed')).toMatchObject([{ range: undefined }]);
    expect(only(world.register('b'), 'triggerSeed')).toEqual([]);
  });
});

describe('ranges', () => {
  test('a peer that fetches a range is no source for who wants the whole', () => {
    const world = new World();
    for (const host of ['a', 'b', 'c']) world.host(host, { pantala: true });
    expect(types(world.register('a', { range: { start: 0, length: 4096 } }))).toEqual(['needBackToSource']);
    expect(types(world.register('b', { range: { start: 0, length: 100 } }))).toEqual(['sendParents']);
    expect(types(world.register('c'))).toEqual(['sendParents', 'needBackToSource']);
  });
});

describe('a host', () => {
  test('that registers under another id keeps its one copy and its children', () => {
    const world = new World();
    for (const host of ['a', 'b']) world.host(host, { pantala: true });
    world.register('a');
    world.peer('a', 'backToSourceStarted');
    world.piece('a');
    world.register('b');
    world.peer('a', 'streamClosed');
    world.register('a', { peerId: 'renamed' });
    expect(world.core.peer(TASK, 'a-peer')).toBeUndefined();
    expect(world.core.peer(TASK, 'renamed')?.finishedPieces).toBe(1);
  });

  test('is told that it is alone, and that it is not any more', () => {
    const world = new World();
    world.host('a', { pantala: true });
    expect(only(world.decisions, 'company')).toEqual([{ type: 'company', hostId: 'a', alone: true }]);
    world.host('b', { pantala: true });
    expect(only(world.decisions, 'company').slice(1)).toEqual([{ type: 'company', hostId: 'a', alone: false }]);
    expect(only(world.send({ type: 'hostDeleted', hostId: 'b' }), 'company')).toHaveLength(1);
    const forbidden = new World({ backToSourceCount: 0 });
    forbidden.host('a', { pantala: true });
    expect(only(forbidden.decisions, 'company')).toEqual([]);
  });

  test('that is no parent by its own wish is none', () => {
    const world = new World();
    world.host('a', { disableShared: true });
    world.host('b');
    world.register('a');
    world.peer('a', 'backToSourceStarted');
    world.peer('a', 'backToSourceFinished');
    expect(only(world.register('b'), 'sendParents')).toEqual([]);
  });

  test('near the child is preferred', () => {
    const world = new World({ candidateParentLimit: 1 });
    world.host('near', { idc: 'X', location: 'eu|de|b' });
    world.host('far', { idc: 'y', location: 'us|ca|a' });
    world.host('child', { idc: 'x', location: 'eu|de|a' });
    for (const host of ['far', 'near']) {
      world.register(host, { needBackToSource: true });
      world.peer(host, 'backToSourceStarted');
      world.peer(host, 'backToSourceFinished');
    }
    expect(only(world.register('child'), 'sendParents')[0]?.parents).toEqual([{ peerId: 'near-peer', hostId: 'near' }]);
  });

  test('that does not announce itself any more is forgotten with its peers', () => {
    const world = new World();
    world.host('a', { announceIntervalMs: 60_000 });
    world.register('a');
    world.pass(119_000);
    expect(world.core.counts.hosts).toBe(1);
    const after = world.pass(30_000);
    expect(only(after, 'hostForgotten')).toEqual([{ type: 'hostForgotten', hostId: 'a' }]);
    expect(only(after, 'failPeer')).toMatchObject([{ peerId: 'a-peer', code: 'not-found' }]);
    expect(world.core.counts).toMatchObject({ hosts: 0, peers: 0 });
  });
});

describe('after a restart', () => {
  test('the copies that hosts list are parents at once, and a copy that is not listed any more is forgotten', () => {
    const world = new World();
    const facts = { contentLength: 4_000_000, pieceLength: 4 << 20, digest: `sha256:${TASK}` };
    world.host('a');
    world.send({ type: 'hostConnected', hostId: 'a' });
    const held = { taskId: TASK, peerId: 'old', facts, blockCount: 245, report: undefined };
    world.send({ type: 'heldTasks', hostId: 'a', tasks: [held], completeList: true });
    world.host('b');
    expect(only(world.register('b', { facts }), 'sendParents')[0]?.parents).toEqual([{ peerId: 'old', hostId: 'a' }]);
    expect(only(world.decisions, 'triggerSeed')).toEqual([]);

    world.send({ type: 'hostDisconnected', hostId: 'a' });
    world.send({ type: 'hostConnected', hostId: 'a' });
    world.send({ type: 'heldTasks', hostId: 'a', tasks: [], completeList: true });
    expect(world.core.peer(TASK, 'old')).toBeUndefined();
  });

  test('a part of a task is of use to Pantala peers only', () => {
    const world = new World();
    const facts = { contentLength: 40_000_000, pieceLength: 4 << 20, digest: undefined };
    world.host('a', { pantala: true });
    const held = { taskId: TASK, peerId: 'old', facts, blockCount: 3, report: undefined };
    world.send({ type: 'heldTasks', hostId: 'a', tasks: [held], completeList: false });
    world.host('b', { pantala: true });
    world.host('c');
    expect(types(world.register('b', { facts }))).toEqual(['sendParents', 'needBackToSource']);
    expect(only(world.register('c', { facts }), 'sendParents')).toEqual([]);
  });
});
