import { afterAll, beforeAll, expect, test } from 'vitest';
import { ask, Content, type Fault, loopbackPlace, Origin, Relay } from '../../src/index.ts';

const content = new Content(400_000, 'relay');
let origin: Origin;
let relay: Relay;
let url: string;
beforeAll(async () => {
  origin = await Origin.start({ host: loopbackPlace().address });
  const target = new URL(origin.serve('/file', content));
  relay = await Relay.start({ host: target.hostname, port: Number(target.port) }, { host: loopbackPlace().address });
  url = `http://${relay.host}:${relay.port}/file`;
});
afterAll(async () => {
  await relay[Symbol.asyncDispose]();
  await origin[Symbol.asyncDispose]();
});

test('without a fault everything passes and is counted', async () => {
  relay.fault = { kind: 'none' };
  const before = relay.bytesBack;
  expect(await ask(url)).toMatchObject({ status: 200, sha256: content.sha256 });
  expect(relay.bytesBack - before).toBeGreaterThan(content.length);
});

test.each<{ fault: Fault; outcome: object }>([
  { fault: { kind: 'corrupt', every: 100_000 }, outcome: { status: 200, bytes: 400_000, whole: true } },
  { fault: { kind: 'truncate', after: 100_000 }, outcome: { status: 200, whole: false } },
])('$fault.kind', async ({ fault, outcome }) => {
  relay.fault = fault;
  const answer = await ask(url);
  expect(answer).toMatchObject(outcome);
  expect(answer.sha256).not.toBe(content.sha256);
});

test('throttle holds back', async () => {
  relay.fault = { kind: 'throttle', bytesPerSecond: 1_000_000 };
  expect((await ask(url)).seconds).toBeGreaterThan(0.3);
});

test('stall gives nothing, cut resets', async () => {
  relay.fault = { kind: 'stall' };
  await expect(ask(url, { deadline: 300 })).rejects.toMatchObject({ code: 'deadline-exceeded' });
  relay.fault = { kind: 'cut' };
  await expect(ask(url)).rejects.toMatchObject({ code: 'unavailable' });
});
