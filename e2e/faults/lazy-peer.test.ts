import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { proxySocketOf } from '@pantala/base';
import { registrySources } from '@pantala/lazyfs';
import { loopbackPlace, type Program, pantala, Registry, run, Swarm, until, within } from '@pantala/testkit';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { image } from '../lib/images.ts';
import { LazyStage } from '../lib/lazy-stage.ts';
import { writeLayout } from '../lib/oci-layout.ts';
import { FULL, MIB } from '../lib/stage.ts';

const root = process.getuid?.() === 0;
const FILES = 20;
const FILE_LENGTH = 2 * MIB + 333;
const STEP = 65_536;
/** Milliseconds for what would last for ever where somebody hangs. */
const NO_HANG = 60_000;

interface Filled {
  readonly source: string;
  readonly fetched: number;
}

describe.skipIf(!root).each(FULL ? (['fanotify', 'fuse'] as const) : (['fanotify'] as const))(
  'a mount by %s beside a peer of a swarm (as root)',
  (driver) => {
    let stage: LazyStage;
    let registry: Registry;
    let swarm: Swarm;
    let tree: string;
    let mounted: Program;

    beforeEach(async () => {
      stage = new LazyStage();
      registry = await Registry.start({ place: loopbackPlace() });
      swarm = await Swarm.start({
        scheduler: loopbackPlace(),
        seeds: [loopbackPlace()],
        peers: [loopbackPlace(), loopbackPlace()],
      });
      tree = stage.scratch.join('tree');
      mkdirSync(tree);
      for (let file = 0; file < FILES; file++) writeFileSync(join(tree, nameOf(file)), randomBytes(FILE_LENGTH));
      const tar = stage.scratch.join('tar');
      await run('tar', ['-cf', tar, '-C', tree, '.']);
      writeLayout(stage.scratch.join('layout'), [{ layers: [{ tar: readFileSync(tar), form: 'tar' }] }]);
      const name = `${registry.host}/lazy/image:nydus`;
      await image('convert', `oci:${stage.scratch.join('layout')}`, name, '--chunk-size', '64KiB');
      const options = ['--endpoint', swarm.peer.socket, '--driver', driver, '--no-prefetch', '--trace', '--json'];
      mounted = await pantala(['mount', name, stage.scratch.join('m'), ...stage.options, ...options], {
        ready: /"mounted"/,
      });
      registry.resetCount();
    });

    afterEach(async () => {
      await mounted[Symbol.asyncDispose]();
      await stage[Symbol.asyncDispose]();
      await swarm[Symbol.asyncDispose]();
      await registry[Symbol.asyncDispose]();
    });

    /** Stored bytes by the kind of their source, as `pantala mount --trace` shows them. */
    function traced(): { readonly peer: number; readonly registry: number } {
      const lines = mounted.stdout.split('\n').filter((line) => line.includes('"source"') && line.endsWith('}'));
      const filled = lines.map((line) => JSON.parse(line) as Filled);
      const sum = (kind: string): number =>
        filled.filter(({ source }) => source.startsWith(kind)).reduce((total, { fetched }) => total + fetched, 0);
      return { peer: sum('peer'), registry: sum('registry') };
    }

    /** The same by the worker's metrics. */
    async function metered(): Promise<{ readonly peer: number; readonly registry: number }> {
      const bytes = { peer: 0, registry: 0 };
      for await (const line of stage.worker.lines('GET', '/metrics')) {
        const match = /^pantala_lazyfs_source_bytes_total\{source="(peer|registry)[^"]*"\} (\d+)$/.exec(line);
        if (match !== null) bytes[match[1] as keyof typeof bytes] = Number(match[2]);
      }
      return bytes;
    }

    /** Reads a file, or a part of it, and compares every byte. */
    async function readRight(file: number, from = 0, to = FILE_LENGTH): Promise<void> {
      const expected = readFileSync(join(tree, nameOf(file)));
      await using found = await open(stage.scratch.join('m', nameOf(file)), 'r');
      for (let at = from; at < to; at += STEP) {
        const { bytesRead, buffer } = await found.read(Buffer.alloc(STEP), 0, STEP, at);
        expect(buffer.subarray(0, bytesRead).equals(expected.subarray(at, at + STEP)), `${file} at ${at}`).toBe(true);
      }
    }

    test('goes on from the registry when the peer is killed, and uses it again when it is back', async () => {
      await within(NO_HANG, 'reading through the peer', readRight(0));
      await until(async () => traced().peer > 0, { what: 'the trace names the peer' });
      expect(traced().registry).toBe(0);

      // Readers of cold data, and the death among them.
      const before = traced().peer;
      const readers = Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map((file) => readRight(file)));
      await until(async () => traced().peer > before, { what: 'the readers have begun', interval: 5 });
      await swarm.peer.kill();
      await within(NO_HANG, 'readers whose peer was killed', readers);
      await within(NO_HANG, 'reading without a peer', readRight(9));
      await until(async () => traced().registry > FILE_LENGTH / 2, { what: 'the trace names the registry' });
      expect((await metered()).registry).toBeGreaterThan(FILE_LENGTH / 2);
      expect(registry.bytesOut()).toBeGreaterThan(FILE_LENGTH / 2);

      await swarm.peer.start();
      const without = traced().peer;
      // Each try reads what nobody has read.
      let tries = 0;
      await until(
        async () => {
          const from = (tries % 2) * MIB;
          await readRight(10 + Math.floor(tries++ / 2), from, from + STEP);
          return traced().peer > without;
        },
        { what: 'the peer is used again', interval: 1000 },
      );
      await within(NO_HANG, 'reading through the peer again', readRight(19));
      for (let each = 0; each < FILES; each++) await within(NO_HANG, 'reading all', readRight(each));
    });

    test('goes on from the peers when the registry is killed', async () => {
      await readRight(0);
      // Another peer of the swarm, and with it the seed, come to hold all of the blob.
      const blob = await until(async () => /"blob":"([0-9a-f]{64})"/.exec(mounted.stdout)?.[1], { what: 'a trace' });
      const head = await fetch(`${registry.url}/v2/lazy/image/blobs/sha256:${blob}`, { method: 'HEAD' });
      const size = Number(head.headers.get('content-length'));
      const [, second] = swarm.peers;
      await using sources = registrySources({
        registry: registry.url,
        repository: 'lazy/image',
        peerSocket: proxySocketOf(second?.socket ?? ''),
      });
      for (let start = 0; start < size; start += 4 * MIB) {
        const range = { start, end: Math.min(size, start + 4 * MIB) };
        const { source } = await sources.fetch(blob, range, {
          urgency: 'demand',
          signal: AbortSignal.timeout(NO_HANG),
          avoid: new Set(),
          progress() {},
        });
        expect(source).toBe('peer');
      }
      await registry.program.kill();
      const before = traced();
      for (let file = 1; file < FILES; file++) await within(NO_HANG, 'reading without a registry', readRight(file));
      await until(async () => traced().peer - before.peer > (FILES - 2) * FILE_LENGTH, {
        what: 'the trace names the peer',
      });
      expect(traced().registry).toBe(0);
      expect((await metered()).registry).toBe(0);
    });
  },
);

function nameOf(file: number): string {
  return `file-${file}`;
}
