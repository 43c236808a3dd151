import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { RegistrySourceOptions } from '@pantala/lazyfs';
import { until, within } from '@pantala/testkit';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { BlobServer } from '../lib/blob-server.ts';
import { type BuiltImage, LazyStage } from '../lib/lazy-stage.ts';
import { FULL, MIB } from '../lib/stage.ts';

const root = process.getuid?.() === 0;
/** A file for each case: what one has read is cached for all. */
const CASES = ['gone-peer', 'lying-peer', 'silent-peer', 'tokens', 'gone-registry', 'silent-registry', 'lying-all'];
/** Milliseconds in which a read fails where nobody has the bytes. */
const DEADLINE = 1_500;

describe.skipIf(!root).each(['fanotify', 'fuse'] as const)(
  'sources that fail under a mount by %s (as root)',
  (driver) => {
    /** Which source gave the bytes does not depend on the driver; what a reader without a source is told does. */
    const testOnce = driver === 'fuse' && !FULL ? undefined : test;
    let stage: LazyStage;
    let image: BuiltImage;
    let registry: BlobServer;
    let peer: BlobServer;

    beforeAll(async () => {
      stage = new LazyStage();
      const tree = stage.scratch.join('tree');
      mkdirSync(tree);
      for (const name of CASES) writeFileSync(join(tree, name), randomBytes(2 * MIB));
      image = await stage.build(tree, ['--chunk-size', '64KiB']);
      registry = await BlobServer.start(image.blobs);
      peer = await BlobServer.start(image.blobs, { path: stage.scratch.join('peer.sock') });
      // The worker is started by a mount of nothing much.
      const nothing = stage.scratch.join('nothing');
      mkdirSync(nothing);
      await stage.mount(await stage.build(nothing), 'n', '--no-prefetch', '--driver', driver);
    });

    beforeEach(recover);

    async function recover(): Promise<void> {
      for (const each of [peer, registry]) {
        each.manner = 'right';
        each.tokenLife = undefined;
        // Whoever was not answered asks again.
        await each.down();
        await each.up();
      }
    }

    afterAll(async () => {
      await stage[Symbol.asyncDispose]();
      await peer[Symbol.asyncDispose]();
      await registry[Symbol.asyncDispose]();
    });

    /** Mounts the image for one case, from registry and peer. */
    async function mounted(options: Partial<RegistrySourceOptions> = {}): Promise<AsyncDisposable> {
      registry.answers = 0;
      peer.answers = 0;
      const peerSocket = stage.scratch.join('peer.sock');
      await stage.worker.call('POST', '/pantala/v1/mounts', {
        target: stage.scratch.join('m'),
        bootstrap: image.bootstrap,
        sources: { kind: 'registry', registry: { registry: registry.url, repository: 'any', peerSocket, ...options } },
        driver,
        prefetch: { enabled: false },
        pieceLength: 0,
      });
      return { [Symbol.asyncDispose]: () => stage.umount('m') };
    }

    /** Reads a file of the mount in steps of 64 KiB, and compares. */
    async function readRight(name: string, from: number, to: number): Promise<void> {
      const expected = readFileSync(join(image.tree, name));
      const file = await open(join(stage.scratch.join('m'), name), 'r');
      await using _ = file;
      for (let at = from; at < to; at += 65_536) {
        const { bytesRead, buffer } = await file.read(Buffer.alloc(65_536), 0, 65_536, at);
        expect(buffer.subarray(0, bytesRead).equals(expected.subarray(at, at + 65_536)), `${name} at ${at}`).toBe(true);
      }
    }

    testOnce?.(
      'a peer that goes and comes back: the registry gives meanwhile, and the peer is used again',
      async () => {
        await using _ = await mounted();
        await readRight('gone-peer', 0, MIB / 4);
        expect([peer.answers > 0, registry.answers]).toEqual([true, 0]);
        await peer.down();
        await readRight('gone-peer', MIB / 4, MIB / 2);
        expect(registry.answers).toBeGreaterThan(0);
        await peer.up();
        peer.answers = 0;
        let at = MIB / 2;
        await until(
          async () => {
            await readRight('gone-peer', at, at + 65_536);
            at += 65_536;
            return peer.answers > 0;
          },
          { what: 'the peer is asked again', interval: 200 },
        );
      },
    );

    testOnce?.('a peer that gives wrong bytes: the next source is asked, and no wrong byte is seen', async () => {
      await using _ = await mounted();
      peer.manner = 'wrong';
      await readRight('lying-peer', 0, MIB);
      expect([peer.answers > 0, registry.answers > 0]).toEqual([true, true]);
    });

    testOnce?.('a peer that is silent is passed by', async () => {
      await using _ = await mounted();
      peer.manner = 'silent';
      await within(20_000, 'reading beside a silent peer', readRight('silent-peer', 0, MIB));
      expect(registry.answers).toBeGreaterThan(0);
    });

    testOnce?.('tokens that end in the middle are renewed', async () => {
      registry.tokenLife = 3;
      await using _ = await mounted({ peerSocket: false });
      await readRight('tokens', 0, MIB);
      expect(registry.tokens).toBeGreaterThan(2);
    });

    test.each(['gone-registry', 'silent-registry'])(
      'a %s: readers get an error in time and never zeros, and the bytes when it is back',
      async (name) => {
        await using _ = await mounted({ peerSocket: false, deadline: DEADLINE });
        await readRight(name, 0, 1);
        if (name === 'gone-registry') await registry.down();
        else registry.manner = 'silent';
        const began = performance.now();
        // Far from what was read: the kernel reads ahead.
        const starts = [MIB, 1.25 * MIB, 1.5 * MIB, 1.75 * MIB];
        const reads = starts.map((at) => readRight(name, at, at + 1));
        for (const read of await within(30_000, 'reading without a source', Promise.allSettled(reads))) {
          expect(read).toMatchObject({ status: 'rejected', reason: { code: 'EIO' } });
        }
        expect(performance.now() - began).toBeLessThan(4 * DEADLINE);
        // What is there goes on being read.
        await readRight(name, 0, 1);
        await recover();
        await until(() => readRight(name, 0, 2 * MIB).then(() => true), { what: 'everything is well again' });
      },
    );

    test('where everybody gives wrong bytes the reader gets an error', async () => {
      await using _ = await mounted({ deadline: DEADLINE });
      peer.manner = 'wrong';
      registry.manner = 'wrong';
      const reading = readFile(stage.scratch.join('m', 'lying-all'));
      await expect(within(30_000, 'reading wrong bytes', reading)).rejects.toMatchObject({ code: 'EIO' });
      await recover();
      await until(() => readRight('lying-all', 0, MIB).then(() => true), { what: 'everything is well again' });
    });
  },
);
