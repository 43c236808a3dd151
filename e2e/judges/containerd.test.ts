import { Containerd, loopbackPlace, machineImage, pushImage, Registry } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { Stage, stored } from '../lib/stage.ts';
import { judge, titled, whyNot } from './lib/installed.ts';

const missing = whyNot('containerd', 'ctr');

test.skipIf(missing !== undefined)(
  titled('containerd 2 pulls an image of several layers through our mirror, by ctr and by CRI', missing),
  async () => {
    const image = await machineImage({ bytes: 60e6, layers: 4 });
    await using stage = await Stage.start({
      settings: { peer: { proxy: { rules: [{ regex: 'blobs/sha256.*' }] } } },
    });
    await using registry = await Registry.start({ place: loopbackPlace() });
    await pushImage(image, { registry: registry.url, repository: 'e2e/machine', tag: '1' });
    registry.resetCount();
    for (const [index, peer] of stage.swarm.peers.entries()) {
      await using containerd = await Containerd.start({ place: loopbackPlace(), binary: judge('containerd') });
      containerd.useMirror({ registry: registry.host, server: registry.url, mirror: peer.proxy });
      const reference = `${registry.host}/e2e/machine:1`;
      if (index === 0) {
        await containerd.pull(reference);
        const blobs = await containerd.blobs();
        expect(blobs).toEqual(expect.arrayContaining(image.layers.map(({ digest }) => digest)));
      } else {
        expect(await containerd.pullByCri(reference)).toBe(image.config.digest);
      }
      for (const { digest } of image.layers) {
        const hex = digest.slice('sha256:'.length);
        expect((await stored(peer, hex, { sha256: true }))?.sha256).toBe(hex);
      }
    }
    for (const { digest, size } of image.layers) expect(registry.bytesOut(digest)).toBeLessThanOrEqual(size * 1.02);
  },
);
