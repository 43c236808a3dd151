import { run, Scratch } from '@pantala/testkit';
import { afterEach, expect, test } from 'vitest';
import { MIB, Stage } from '../lib/stage.ts';
import { crowd, expectRight } from './lib.ts';

let stage: Stage | undefined;
let scratch: Scratch | undefined;
afterEach(async () => {
  await stage?.[Symbol.asyncDispose]();
  if (scratch !== undefined) await run('umount', ['-l', scratch.path], { check: false });
  await scratch?.[Symbol.asyncDispose]();
  stage = undefined;
  scratch = undefined;
});

const ROOT_WANTED = 'a file system of its own needs root';

test.skipIf(process.getuid?.() !== 0)(`a full disk: the asker is served from the origin (${ROOT_WANTED})`, async () => {
  scratch = Scratch.create('disk');
  await run('mount', ['-t', 'tmpfs', '-o', 'size=32m', 'tmpfs', scratch.path]);
  stage = await Stage.start({ peers: 2, settings: { nodes: { node1: { storage: { dir: scratch.join('data') } } } } });
  const served = stage.serveBlob(80 * MIB);
  expectRight(await crowd(stage, served), served);
  const small = stage.serve(2 * MIB);
  expectRight(await crowd(stage, small), small);
  const metrics = await stage.swarm.peer.metrics();
  expect(metrics.size).toBeGreaterThan(0);
});

test.skipIf(process.getuid?.() !== 0)(`a full disk on the seed harms no peer (${ROOT_WANTED})`, async () => {
  scratch = Scratch.create('disk');
  await run('mount', ['-t', 'tmpfs', '-o', 'size=32m', 'tmpfs', scratch.path]);
  stage = await Stage.start({ peers: 2, settings: { nodes: { seed1: { storage: { dir: scratch.join('data') } } } } });
  const served = stage.serveBlob(80 * MIB);
  expectRight(await crowd(stage, served), served);
});
