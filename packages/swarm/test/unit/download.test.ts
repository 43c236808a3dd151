import { Content, Origin, until } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { MEBI, scheduler } from '../support/cluster.ts';
import { Node } from '../support/node.ts';

function doneLines(node: Node): number {
  return node.lines.filter(({ message }) => message.startsWith('peer task done')).length;
}

test('one node alone fetches each byte once, and a second reading is a hit', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  const content = new Content(20 * MEBI + 123, 'alone');
  const url = origin.serve('/file', content);
  await using node = await Node.start({ name: 'alone' });
  const first = await node.read({ url, traceId: 'ab'.repeat(16) });
  expect(first.sha256).toBe(content.sha256);
  expect(first.task.traffic).toMatchObject({ originBytes: content.length, peerBytes: 0, localBytes: 0 });
  await until(() => doneLines(node) === 1, { what: 'the line' });
  const line = node.lines.find(({ message }) => message.startsWith('peer task done'));
  expect(line?.message).toMatch(/^peer task done, cost: \d+ms$/);
  expect(Object.keys(line?.fields ?? {})).toEqual(['node', 'caller', 'peer', 'task', 'component', 'trace']);
  expect(line?.fields.trace).toBe('ab'.repeat(16));
  const second = await node.read({ url });
  expect(second.task.hit).toBe(true);
  expect(second.task.traffic).toMatchObject({ originBytes: 0, localBytes: content.length });
  expect(doneLines(node)).toBe(1);
  expect(origin.count('/file').bytes).toBeLessThanOrEqual(content.length + 1);
});

test('a small range costs little more than its blocks', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  const content = new Content(64 * MEBI, 'ranges');
  const url = origin.serve('/file', content);
  await using node = await Node.start({ name: 'ranges' });
  const range = { start: 10_000_000, end: 10_000_000 + 128 * 1024 };
  const reading = await node.read({ url }, range);
  expect(reading.sha256).toBe(content.sha256Of(range.start, range.end));
  expect(origin.count('/file').bytes).toBeLessThanOrEqual(1.3 * 128 * 1024);
  // Nobody else can be asked: the request that learns what the content is brings the bytes as well.
  expect(origin.count('/file').requests).toBe(1);
});

test('an origin without length or ranges is served all the same', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  const content = new Content(5 * MEBI + 7, 'odd');
  await using node = await Node.start({ name: 'odd' });
  const chunked = await node.read({ url: origin.serve('/chunked', content, { chunked: true }) });
  expect(chunked.sha256).toBe(content.sha256);
  const range = { start: MEBI, end: 2 * MEBI };
  const part = await node.read({ url: origin.serve('/plain', content, { noRanges: true }) }, range);
  expect(part.sha256).toBe(content.sha256Of(range.start, range.end));
});

test('a body that breaks off is taken up again', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  const content = new Content(9 * MEBI, 'broken');
  await using node = await Node.start({ name: 'broken' });
  const url = origin.serve('/file', content, { truncateAfter: 2 * MEBI + 17 });
  expect((await node.read({ url })).sha256).toBe(content.sha256);
});

test('a seed and two peers: the origin gives one copy, a later peer asks only peers', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  await using sched = await scheduler();
  const content = new Content(48 * MEBI + 5, 'swarm');
  const url = origin.serve(`/v2/x/blobs/sha256:${content.sha256}`, content);
  const schedulers = [sched.at];
  await using _seed = await Node.start({ name: 'seed', seed: true, schedulers });
  await using one = await Node.start({ name: 'one', schedulers });
  await using two = await Node.start({ name: 'two', schedulers });
  const readings = await Promise.all([one.read({ url }), two.read({ url })]);
  for (const reading of readings) {
    expect(reading.sha256).toBe(content.sha256);
    expect(reading.task.traffic.originBytes).toBe(0);
    expect(reading.task.traffic.peerBytes).toBe(content.length);
  }
  expect(origin.count(new URL(url).pathname).bytes).toBeLessThanOrEqual(content.length * 1.02);
});

test('a prefetch brings the rest after the range that was asked for, and writes the line', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  const content = new Content(12 * MEBI, 'prefetch');
  const url = origin.serve('/file', content);
  await using node = await Node.start({ name: 'prefetch' });
  const range = { start: 8 * MEBI, end: 8 * MEBI + 4096 };
  const reading = await node.read({ url, prefetch: true }, range);
  expect(reading.sha256).toBe(content.sha256Of(range.start, range.end));
  await until(() => doneLines(node) === 1, { what: 'the line' });
  expect([...node.store.tasks()].every(({ complete }) => complete)).toBe(true);
  expect(origin.count('/file').bytes).toBeLessThanOrEqual(content.length * 1.02);
});

test('a task read in part writes one line once its readers are silent', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  const url = origin.serve('/file', new Content(12 * MEBI, 'part'));
  await using node = await Node.start({ name: 'part' });
  await node.read({ url }, { start: 0, end: 4096 });
  expect(doneLines(node)).toBe(0);
  await until(() => doneLines(node) === 1, { what: 'the line' });
});

test('without a seed, a second fetch of content without digest confirms the first', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  await using sched = await scheduler();
  const content = new Content(16 * MEBI, 'seedless');
  const url = origin.serve('/file', content);
  await using one = await Node.start({ name: 'seedless-1', schedulers: [sched.at] });
  await using two = await Node.start({ name: 'seedless-2', schedulers: [sched.at] });
  await using three = await Node.start({ name: 'seedless-3', schedulers: [sched.at] });
  for (const node of [one, two, three]) expect((await node.read({ url })).sha256).toBe(content.sha256);
  expect(origin.count('/file').bytes).toBeLessThanOrEqual(content.length * 2.02);
});

test('with a seed, what another peer fetched past it sends nobody else to the origin', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  await using sched = await scheduler();
  const schedulers = [sched.at];
  await using _seed = await Node.start({ name: 'seed', seed: true, schedulers });
  await using hasty = await Node.start({ name: 'hasty', schedulers });
  await using patient = await Node.start({ name: 'patient', schedulers });
  const content = new Content(12 * MEBI, 'past the seed');
  const url = origin.serve('/file', content, { bytesPerSecond: 8 * MEBI });
  const patiently = patient.read({ url });
  await until(() => origin.count('/file').bytes > MEBI, { what: 'the seed fetches' });
  // Digests of these blocks come from a peer alone, and nothing else could tell whether they are right.
  await hasty.read({ url, needBackToSource: true }, { start: 10 * MEBI, end: 11 * MEBI });
  const reading = await patiently;
  expect(reading.sha256).toBe(content.sha256);
  expect(reading.task.traffic.originBytes).toBe(0);
});

test('an origin that told a wrong length at first: the next request begins anew', async () => {
  await using origin = await Origin.start({ host: '127.0.0.1' });
  const content = new Content(6 * MEBI, 'length');
  const url = origin.serve('/file', content, { lengthError: 1000, times: 1 });
  await using node = await Node.start({ name: 'length' });
  await expect(node.read({ url })).rejects.toThrow();
  await until(() => node.store.usage.tasks === 0, { what: 'the task is forgotten' });
  expect((await node.read({ url })).sha256).toBe(content.sha256);
});
