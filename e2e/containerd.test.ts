import { Containerd, loopbackPlace, machineImage, pushImage, Registry } from '@pantala/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Stage, stored } from './lib/stage.ts';

const IMAGE = { bytes: 60e6, layers: 4 };
const USER = { name: 'pantala', password: 'secret' };

let stage: Stage;
let registry: Registry;
let closed: Registry;
let containerd: Containerd;
const image = await machineImage(IMAGE);

beforeAll(async () => {
  stage = await Stage.start({ settings: { peer: { proxy: { rules: [{ regex: 'blobs/sha256.*' }] } } } });
  registry = await Registry.start({ place: loopbackPlace() });
  closed = await Registry.start({ place: loopbackPlace(), user: USER });
  containerd = await Containerd.start({ place: loopbackPlace() });
  await pushImage(image, { registry: registry.url, repository: 'e2e/machine', tag: '1' });
  const authorization = `Basic ${Buffer.from(`${USER.name}:${USER.password}`).toString('base64')}`;
  await pushImage(image, { registry: closed.url, repository: 'e2e/private', tag: '1', authorization });
  for (const { host, url } of [registry, closed]) {
    containerd.useMirror({ registry: host, server: url, mirror: stage.swarm.peer.proxy });
  }
});
afterAll(async () => {
  await containerd[Symbol.asyncDispose]();
  await registry[Symbol.asyncDispose]();
  await closed[Symbol.asyncDispose]();
  await stage[Symbol.asyncDispose]();
});

test('containerd pulls an image through the mirror, and every layer is one task with its digest', async () => {
  const reference = `${registry.host}/e2e/machine:1`;
  const { peer } = stage.swarm;
  registry.resetCount();
  await containerd.pull(reference);
  expect(await containerd.blobs()).toEqual(expect.arrayContaining(image.layers.map(({ digest }) => digest)));
  for (const { digest } of image.layers) {
    const hex = digest.slice('sha256:'.length);
    expect((await stored(peer, hex, { sha256: true }))?.sha256).toBe(hex);
    expect(registry.bytesOut(digest)).toBeLessThanOrEqual(sizeOf(digest) * 1.02);
  }
  const tasks = new Set(peer.doneLines().map(({ task }) => task));
  for (const { digest } of image.layers) expect(tasks).toContain(digest.slice('sha256:'.length));
  await containerd.remove(reference);
});

test('the same by CRI, as the kubelet pulls: nothing comes from the registry any more', async () => {
  registry.resetCount();
  expect(await containerd.pullByCri(`${registry.host}/e2e/machine:1`)).toMatch(/^sha256:/);
  expect(image.layers.map(({ digest }) => registry.bytesOut(digest))).toEqual(image.layers.map(() => 0));
});

test('a registry with basic authentication', async () => {
  const reference = `${closed.host}/e2e/private:1`;
  await expect(containerd.pull(reference)).rejects.toThrow(/401|nauthorized/);
  await containerd.pull(reference, { user: `${USER.name}:${USER.password}` });
  await containerd.remove(reference);
});

test('the line in the log has the keys that operators know', async () => {
  const [line] = stage.swarm.peer.doneLines();
  expect(line).toMatchObject({ level: 'info', component: 'PeerTask' });
  expect(line?.msg).toMatch(/^peer task done, cost: \d+ms$/);
  expect(line?.ts).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$/);
  expect(line?.peer).toMatch(/^127\.\d+\.\d+\.\d+-\d+-[0-9a-f-]{36}$/);
  expect(line?.trace).toMatch(/^[0-9a-f]{32}$/);
  expect(line?.caller).toMatch(/^peer\/peertask_conductor\.go:\d+$/);
});

function sizeOf(digest: string): number {
  return image.layers.find((layer) => layer.digest === digest)?.size ?? 0;
}
