import { randomBytes } from 'node:crypto';
import type { commonV2 } from '@pantala/api';
import { ask, until } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { AnnouncedPeer } from './lib/announced-peer.ts';
import { Stage } from './lib/stage.ts';

const LOAD_LIMIT = 2;
const METRICS_PORT = 18_099;

let stage: Stage;
beforeAll(async () => {
  const cluster = { schedulerClusterClientConfig: { loadLimit: LOAD_LIMIT } };
  const scheduler = { metrics: { enable: true, addr: `127.0.0.1:${METRICS_PORT}` } };
  stage = await Stage.start({ seeds: 0, peers: 0, settings: { cluster, scheduler } });
});
afterAll(async () => stage[Symbol.asyncDispose]());

const newTask = (): string => randomBytes(32).toString('hex');
const started = { case: 'downloadPeerStartedRequest', value: {} } as const;

/** Ids of the parents in an answer. */
function parentsIn(answer: Awaited<ReturnType<AnnouncedPeer['answer']>>): string[] {
  if (answer?.case !== 'normalTaskResponse') throw new Error(`parents were expected, not ${answer?.case}`);
  return answer.value.candidateParents.map(({ id }) => id);
}

describe('a Dragonfly peer’s announcement', () => {
  test.each([
    { how: 'downloadPeerFinishedRequest', state: 'Succeeded' },
    { how: 'downloadPeerFailedRequest', state: 'Failed' },
    { how: 'downloadPeerBackToSourceFinishedRequest', state: 'Succeeded' },
    { how: 'downloadPeerBackToSourceFailedRequest', state: 'Failed' },
  ] as const)('after $how the scheduler ends the stream, though the peer keeps its side open', async (end) => {
    const task = newTask();
    await using peer = await AnnouncedPeer.start(stage, `closing-${end.how}`, task);
    peer.register({ needBackToSource: true });
    expect((await peer.answer())?.case).toBe('needBackToSourceResponse');
    peer.say({ case: 'downloadPeerBackToSourceStartedRequest', value: {} });
    await until(async () => (await peer.state()) === 'BackToSource', { what: 'the peer fetches' });
    peer.say({ case: end.how, value: {} });
    expect(await peer.answer()).toBeUndefined();
    expect(await peer.state()).toBe(end.state);
  });

  test('may say twice that it has started', async () => {
    const task = newTask();
    await using copy = await AnnouncedPeer.start(stage, 'twice-copy', task);
    await copy.becomeCopy();
    await using child = await AnnouncedPeer.start(stage, 'twice-child', task);
    child.register();
    expect(parentsIn(await child.answer())).toEqual(['twice-copy-peer']);
    child.say(started);
    child.say(started);
    await until(async () => (await child.state()) === 'Running', { what: 'the child runs' });
    child.say({ case: 'downloadPeerFinishedRequest', value: {} });
    expect(await child.answer()).toBeUndefined();
    expect(await child.state()).toBe('Succeeded');
  });

  test('asks again when its parents are of no use, and is sent to the origin when there are no others', async () => {
    const task = newTask();
    for (const name of ['resched-a', 'resched-b']) {
      await using copy = await AnnouncedPeer.start(stage, name, task);
      await copy.becomeCopy();
    }
    await using child = await AnnouncedPeer.start(stage, 'resched-child', task);
    child.register();
    const first = parentsIn(await child.answer());
    expect(new Set(first)).toEqual(new Set(['resched-a-peer', 'resched-b-peer']));
    child.say(started);
    const candidateParents = first.map((id) => ({ id }));
    child.say({ case: 'reschedulePeerRequest', value: { candidateParents, description: 'both are bad' } });
    expect((await child.answer())?.case).toBe('needBackToSourceResponse');
  });

  test('may ask for nothing but what the content is', async () => {
    await using peer = await AnnouncedPeer.start(stage, 'metadata', newTask());
    peer.register({ metadataOnly: true });
    expect((await peer.answer())?.case).toBe('metadataOnlyResponse');
    peer.say(started);
    peer.say({ case: 'downloadPeerFinishedRequest', value: {} });
    expect(await peer.answer()).toBeUndefined();
  });

  test('of content without bytes is answered so', async () => {
    await using peer = await AnnouncedPeer.start(stage, 'empty', newTask());
    peer.register({ actualContentLength: 0n, actualPieceCount: 0n });
    expect((await peer.answer())?.case).toBe('emptyTaskResponse');
    peer.say(started);
    peer.say({ case: 'downloadPeerFinishedRequest', value: {} });
    expect(await peer.answer()).toBeUndefined();
  });

  // What upstream forbids by priority comes with applications, later: until then each is served alike.
  test.each<commonV2.Priority>([0, 1, 2, 3, 4, 5, 6])('of priority %i is served', async (priority) => {
    const task = newTask();
    await using copy = await AnnouncedPeer.start(stage, `priority-copy-${priority}`, task);
    await copy.becomeCopy();
    await using child = await AnnouncedPeer.start(stage, `priority-${priority}`, task);
    child.register({ priority });
    expect(parentsIn(await child.answer())).toEqual([`priority-copy-${priority}-peer`]);
  });

  test('gets a parent that is busy only once another child has left it', async () => {
    const task = newTask();
    await using copy = await AnnouncedPeer.start(stage, 'load-copy', task);
    await copy.becomeCopy();
    const order: string[] = [];
    const children: AnnouncedPeer[] = [];
    await using stack = new AsyncDisposableStack();
    for (let number = 0; number < LOAD_LIMIT; number++) {
      const child = stack.use(await AnnouncedPeer.start(stage, `load-${number}`, task));
      children.push(child);
      child.register();
      expect(parentsIn(await child.answer())).toEqual(['load-copy-peer']);
    }
    const late = stack.use(await AnnouncedPeer.start(stage, 'load-late', task));
    late.register();
    const answered = late.answer().then((answer) => {
      order.push('answered');
      return answer;
    });
    await until(async () => (await late.state()) !== undefined, { what: 'the scheduler knows the late child' });
    order.push('a child leaves');
    children[0]?.say({ case: 'downloadPeerFailedRequest', value: {} });
    expect(parentsIn(await answered)).toEqual(['load-copy-peer']);
    expect(order).toEqual(['a child leaves', 'answered']);
  });
});

test('the scheduler counts all this under upstream’s names', async () => {
  const { beginning } = await ask(`http://127.0.0.1:${METRICS_PORT}/metrics`);
  const samples = new Map(
    beginning
      .toString()
      .split('\n')
      .filter((line) => line.startsWith('dragonfly_scheduler_'))
      .map((line) => [
        line.slice('dragonfly_scheduler_'.length, line.lastIndexOf(' ')),
        Number(line.split(' ').at(-1)),
      ]),
  );
  const copies = samples.get('download_peer_duration_milliseconds_count{task_size_level="4"}') ?? 0;
  expect(copies).toBeGreaterThan(0);
  expect(samples.get('schedule_duration_milliseconds_count')).toBeGreaterThan(copies);
  expect(samples.get('concurrent_schedule_total')).toBe(0);
  expect(samples.get('register_peer_total{priority="3",task_type="0",host_type="0"}')).toBe(1);
  expect([...samples.keys()].some((name) => name.startsWith('version{'))).toBe(true);
});
