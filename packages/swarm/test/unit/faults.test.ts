import { writeSync } from 'node:fs';
import { until, within } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { Cluster, MEBI, scheduler } from '../support/cluster.ts';
import { Node } from '../support/node.ts';

const LIMIT = 40_000;

test('a small range of a task that nobody has goes through the seed', async () => {
  await using cluster = await Cluster.start('range', 64 * MEBI);
  const one = await cluster.peer('range-1');
  for (const start of [5_000_000, 40_000_000]) {
    const range = { start, end: start + 128 * 1024 };
    const reading = await within(LIMIT, 'a range', one.read({ url: cluster.url }, range));
    expect(reading.sha256).toBe(cluster.content.sha256Of(range.start, range.end));
    expect(reading.task.traffic).toMatchObject({ originBytes: 0 });
  }
  expect(cluster.given).toBeLessThanOrEqual(2 * 1.5 * 128 * 1024);
});

test('the seed dies in the middle: the peers go on', async () => {
  await using cluster = await Cluster.start('seed-dies', 24 * MEBI, 12 * MEBI);
  const [one, two] = [await cluster.peer('seed-dies-1'), await cluster.peer('seed-dies-2')];
  const readings = Promise.all([one.read({ url: cluster.url }), two.read({ url: cluster.url })]);
  await until(() => [...one.store.tasks()].some(({ blocks }) => blocks.count > 300), { what: 'a part' });
  await cluster.seed[Symbol.asyncDispose]();
  for (const { sha256 } of await within(LIMIT, 'the peers', readings)) expect(sha256).toBe(cluster.content.sha256);
});

test('a seed that lost its store takes what the peers hold from them, and only the rest from the origin', async () => {
  await using cluster = await Cluster.start('empty-seed', 32 * MEBI);
  const [one, two] = [await cluster.peer('empty-seed-1'), await cluster.peer('empty-seed-2')];
  const piece = 4 * MEBI;
  for (const start of [piece, 2 * piece, 5 * piece]) {
    await within(LIMIT, 'a part', one.read({ url: cluster.url }, { start, end: start + piece }));
  }
  const before = cluster.given;
  expect(before / piece).toBeCloseTo(3, 1);
  await cluster.seed[Symbol.asyncDispose]();
  await using seed = await Node.start({ name: 'empty-seed-s', seed: true, schedulers: [cluster.scheduler.at] });
  await until(() => seed.lines.some(({ message }) => message === 'scheduler is up'), { what: 'the seed is back' });
  const reading = await within(LIMIT, 'all of it', two.read({ url: cluster.url }));
  expect(reading.sha256).toBe(cluster.content.sha256);
  await until(() => [...seed.store.tasks()].every(({ complete }) => complete), { what: 'the seed has everything' });
  expect([...seed.store.tasks()]).toHaveLength(1);
  expect(cluster.given / cluster.content.length).toBeLessThanOrEqual(1.02);
});

test('a peer that sends wrong bytes is dropped, and the reader sees none of them', async () => {
  await using cluster = await Cluster.start('liar', 24 * MEBI);
  const liar = await cluster.peer('liar-1');
  await liar.read({ url: cluster.url });
  const [task] = liar.store.tasks();
  if (task === undefined) throw new Error('the task is missing');
  using lease = task.lease();
  for (let at = 0; at < cluster.content.length; at += MEBI) writeSync(lease.fd, Buffer.alloc(64, 0xee), 0, 64, at);
  await cluster.seed[Symbol.asyncDispose]();
  const victim = await cluster.peer('liar-2');
  const reading = await within(LIMIT, 'the victim', victim.read({ url: cluster.url }));
  expect(reading.sha256).toBe(cluster.content.sha256);
});

test('the scheduler dies in the middle: the peer gets everything', async () => {
  await using cluster = await Cluster.start('sched-dies', 24 * MEBI, 12 * MEBI);
  const one = await cluster.peer('sched-dies-1');
  const reading = one.read({ url: cluster.url });
  await until(() => [...one.store.tasks()].some(({ blocks }) => blocks.count > 300), { what: 'a part' });
  await cluster.scheduler[Symbol.asyncDispose]();
  expect((await within(LIMIT, 'the peer', reading)).sha256).toBe(cluster.content.sha256);
});

test('the scheduler starts anew: it learns what is held, and a new peer gets all from peers', async () => {
  await using cluster = await Cluster.start('restart', 16 * MEBI);
  const one = await cluster.peer('restart-1');
  await one.read({ url: cluster.url });
  const given = cluster.given;
  await cluster.scheduler[Symbol.asyncDispose]();
  await using again = await scheduler(cluster.scheduler.at.port);
  const isUp = (node: Node): boolean => node.lines.filter(({ message }) => message === 'scheduler is up').length >= 2;
  await until(() => isUp(one) && isUp(cluster.seed), { what: 'both are announced again' });
  await using two = await Node.start({ name: 'restart-2', schedulers: [again.at] });
  const reading = await within(LIMIT, 'the new peer', two.read({ url: cluster.url }));
  expect(reading.sha256).toBe(cluster.content.sha256);
  expect(reading.task.traffic.originBytes).toBe(0);
  expect(cluster.given).toBeLessThanOrEqual(given + 1);
});

test('no scheduler can be reached: the origin serves', async () => {
  await using cluster = await Cluster.start('nobody', 8 * MEBI);
  await using alone = await Node.start({ name: 'nobody-1', schedulers: [{ host: '127.0.0.1', port: 1 }] });
  expect((await alone.read({ url: cluster.url })).sha256).toBe(cluster.content.sha256);
});

test('a static seed serves without a scheduler, and its bytes count once the whole is right', async () => {
  await using cluster = await Cluster.start('static', 16 * MEBI);
  await using alone = await Node.start({ name: 'static-1', staticSeeds: [cluster.seed.address] });
  const reading = await within(LIMIT, 'the peer', alone.read({ url: cluster.url }));
  expect(reading.sha256).toBe(cluster.content.sha256);
  expect(reading.task.traffic.peerBytes).toBeGreaterThan(cluster.content.length / 2);
});

test('content that does not have its digest is void, and its reader gets an error', async () => {
  await using cluster = await Cluster.start('wrong', 8 * MEBI);
  const url = cluster.origin.serve(`/v2/x/blobs/sha256:${'0'.repeat(64)}`, cluster.content);
  await using alone = await Node.start({ name: 'wrong-1' });
  await expect(alone.read({ url })).rejects.toMatchObject({ code: 'data-loss' });
  await until(() => [...alone.store.tasks()].every(({ blocks }) => blocks.count === 0), { what: 'it is void' });
  expect(alone.lines.some(({ message }) => message.startsWith('peer task done'))).toBe(false);
});

test('back to source forbidden and no peers: an error that says so', async () => {
  await using cluster = await Cluster.start('forbidden', MEBI);
  await using alone = await Node.start({ name: 'forbidden-1' });
  await expect(alone.read({ url: cluster.url, disableBackToSource: true })).rejects.toMatchObject({
    code: 'unavailable',
  });
});
