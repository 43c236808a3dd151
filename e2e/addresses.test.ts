import { loopbackPlace, Origin } from '@pantala/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { MIB, Stage } from './lib/stage.ts';

let stage: Stage;
beforeAll(async () => {
  const { address } = loopbackPlace();
  const elsewhere = '10.0.0.0/8';
  stage = await Stage.start({
    origin: await Origin.start({ host: address }),
    seeds: 0,
    peers: 4,
    settings: {
      nodes: {
        node2: { backend: { addresses: { allow: [elsewhere] } } },
        node3: { backend: { addresses: { deny: [address] } } },
        node4: { backend: { addresses: { allow: [elsewhere, '127.0.0.0/8'], deny: [elsewhere] } } },
      },
    },
  });
});
afterAll(async () => stage[Symbol.asyncDispose]());

test.each([
  { node: 0, why: 'by default any address is asked', status: 200 },
  { node: 1, why: 'with a list of allowed ones, no other', status: 403 },
  { node: 2, why: 'those in the list of denied ones are not', status: 403 },
  { node: 3, why: 'an allowed one that is not denied is', status: 200 },
])('origins: $why', async ({ node, status }) => {
  const { url, path, content } = stage.serve(MIB);
  const peer = stage.swarm.peers[node] ?? stage.swarm.peer;
  const answer = await stage.fetch(peer, url);
  expect(answer.status).toBe(status);
  if (status === 200) expect(answer.sha256).toBe(content.sha256);
  else expect(stage.origin.count(path).requests).toBe(0);
});
