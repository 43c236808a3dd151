import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { createClient, healthV1, managerV2, pantalaV1, schedulerV2 } from '@pantala/api';
import {
  ask,
  Content,
  loopbackPlace,
  Origin,
  pantala,
  Scratch,
  Swarm,
  serverCertificate,
  until,
} from '@pantala/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { MIB } from './lib/stage.ts';

const places = {
  manager: loopbackPlace(),
  scheduler: loopbackPlace(),
  seeds: [loopbackPlace()],
  peers: [loopbackPlace(), loopbackPlace()],
};

let scratch: Scratch;
let origin: Origin;
let swarm: Swarm;
let ours: { readonly ca: string; readonly cert: string; readonly key: string };
beforeAll(async () => {
  scratch = Scratch.create('encrypted');
  const addresses = [places.manager, places.scheduler, ...places.seeds, ...places.peers].map(({ address }) => address);
  const { authority, cert, key } = await serverCertificate(...addresses);
  ours = { ca: authority, cert, key };
  const tls = { caCert: scratch.join('ca.pem'), cert: scratch.join('cert.pem'), key: scratch.join('key.pem') };
  writeFileSync(tls.caCert, authority);
  writeFileSync(tls.cert, cert);
  writeFileSync(tls.key, key);
  origin = await Origin.start({ host: loopbackPlace().address });
  swarm = await Swarm.start({
    ...places,
    settings: {
      manager: { server: { grpc: { tls } } },
      scheduler: { server: { tls }, manager: { tls }, seedPeer: { tls } },
      peer: { manager: tls, scheduler: tls, upload: { server: tls, client: tls } },
    },
  });
});
afterAll(async () => {
  await swarm[Symbol.asyncDispose]();
  await origin[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

test('a swarm whose programs show each other certificates fetches once', async () => {
  const address = { host: places.scheduler.address, port: 8002 };
  using client = createClient(schedulerV2.Scheduler, address, { tls: ours });
  await until(async () => (await client.listHosts({})).hosts.length === 3, { what: 'all three are announced' });
  const content = new Content(24 * MIB, randomUUID());
  const path = `/v2/e2e/blobs/sha256:${content.sha256}`;
  const url = origin.serve(path, content);
  for (const peer of swarm.peers) {
    expect(await ask(url, { proxy: peer.proxy })).toMatchObject({ status: 200, whole: true, sha256: content.sha256 });
  }
  expect(origin.count(path).bytes / content.length).toBeLessThanOrEqual(1.05);
  expect((await swarm.peer.traffic()).peers).toBe(content.length);
});

test.each([
  { name: 'the manager', at: { host: places.manager.address, port: 65_003 }, service: managerV2.Manager },
  { name: 'the scheduler', at: { host: places.scheduler.address, port: 8002 }, service: pantalaV1.Scheduler },
  { name: 'a seed', at: { host: places.seeds[0]?.address ?? '', port: 4000 }, service: pantalaV1.Peer },
  { name: 'a peer', at: { host: places.peers[0]?.address ?? '', port: 4000 }, service: pantalaV1.Peer },
])('$name answers nobody without a certificate of the same authority', async ({ at, service }) => {
  const request = { service: service.typeName };
  using known = createClient(healthV1.Health, at, { tls: ours });
  expect(await known.check(request)).toMatchObject({ status: healthV1.HealthCheckResponse_ServingStatus.SERVING });
  const stranger = await serverCertificate(at.host);
  using strange = createClient(healthV1.Health, at, { tls: { ...stranger, ca: ours.ca } });
  await expect(strange.check(request)).rejects.toMatchObject({ code: 'unavailable' });
  using plain = createClient(healthV1.Health, at);
  await expect(plain.check(request)).rejects.toMatchObject({ code: 'unavailable' });
});

test('a file that names a certificate without its key is refused, with its place', async () => {
  const path = scratch.join('half.yaml');
  writeFileSync(path, `upload:\n  server:\n    cert: ${scratch.join('cert.pem')}\n`);
  await using program = await pantala(['peer', '--config', path]);
  expect((await program.exited).code).toBe(78);
  expect(program.stderr).toContain(`${path}:3:5: upload.server: caCert, cert and key are needed together`);
});
