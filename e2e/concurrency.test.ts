import { Agent } from 'node:http';
import { run } from '@pantala/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BLOCK, copies, MIB, Stage, wholeTask } from './lib/stage.ts';

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.start();
});
afterAll(async () => stage[Symbol.asyncDispose]());

test.each([100, 200, 500, 1000])('%i connections ask for one file', async (connections) => {
  const served = stage.serve(MIB);
  const { url, content } = served;
  const { peer } = stage.swarm;
  const proxy = new URL(peer.proxy).host;
  const { stdout } = await run('ab', [
    '-q',
    '-c',
    `${connections}`,
    '-n',
    `${2 * connections}`,
    '-s',
    '120',
    '-X',
    proxy,
    url,
  ]);
  expect(stdout).toMatch(/Failed requests:\s+0\b/);
  expect(stdout).not.toMatch(/Non-2xx/);
  expect(stdout).toMatch(new RegExp(`Complete requests:\\s+${2 * connections}\\b`));
  expect(await wholeTask(peer, { url })).toBe(content.sha256);
  expect(copies(stage, served)).toBeLessThanOrEqual(1);
});

test('many ranges of one cold file, each asked for by several at once', async () => {
  const { url, content, path } = stage.serve(32 * MIB);
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  const asks = Array.from({ length: 256 }, async (_, index) => {
    const start = ((index % 64) * 523_987) % (content.length - 70_000);
    const peer = stage.swarm.peers[index % 2] ?? stage.swarm.peer;
    const answer = await stage.fetch(peer, url, { agent, headers: { range: `bytes=${start}-${start + 69_999}` } });
    expect(answer).toMatchObject({ status: 206, sha256: content.sha256Of(start, start + 70_000) });
  });
  await Promise.all(asks);
  agent.destroy();
  // 64 ranges of 70,000 bytes touch at most six blocks each, and nobody asks the origin twice for one.
  expect(stage.origin.count(path).bytes).toBeLessThanOrEqual(64 * 6 * BLOCK + 64);
});
