import { writeFileSync } from 'node:fs';
import { ask, loopbackPlace, Origin, Scratch, serverCertificate } from '@pantala/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { MIB, Stage } from './lib/stage.ts';

let stage: Stage;
let scratch: Scratch;
beforeAll(async () => {
  const { address } = loopbackPlace();
  const certificate = await serverCertificate(address);
  scratch = Scratch.create('tls');
  const authority = scratch.join('authority.pem');
  writeFileSync(authority, certificate.authority);
  const origin = await Origin.start({ host: address }, certificate);
  const { host } = new URL(origin.url);
  stage = await Stage.start({
    origin,
    seeds: 0,
    peers: 3,
    settings: {
      nodes: {
        node2: { backend: { registries: [{ host, insecure: true }] } },
        node3: { backend: { registries: [{ host, ca: [authority] }] } },
      },
    },
  });
});
afterAll(async () => {
  await stage[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

test.each([
  { node: 0, why: 'an authority that nobody knows is refused', status: 503 },
  { node: 1, why: 'insecure is for the registries that it is said of', status: 200 },
  { node: 2, why: 'a further authority of a registry', status: 200 },
])('https: $why', async ({ node, status }) => {
  const { path, content } = stage.serveBlob(MIB);
  const headers = { 'x-dragonfly-registry': stage.origin.url };
  const peer = stage.swarm.peers[node] ?? stage.swarm.peer;
  const answer = await ask(peer.proxy + path, { headers });
  expect(answer.status).toBe(status);
  if (status === 200) expect(answer.sha256).toBe(content.sha256);
  else expect(stage.origin.count(path).requests).toBe(0);
});
