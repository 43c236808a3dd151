import type { BlockRun } from '@pantala/base';
import { ask } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BLOCK, copies, FULL, MIB, Stage, shownTask, touched, wholeTask } from './lib/stage.ts';

const SIZES = [1, 10, 100, ...(FULL ? [500, 1024] : [])];
const TAG = { 'x-dragonfly-tag': 'proxy' };

/** Upstream's ranges, as curl's `-r` has them, and the slice that each stands for. */
const RANGES = [
  { range: '-100', length: MIB, start: MIB - 100, end: MIB },
  { range: '0-100', length: MIB, start: 0, end: 101 },
  { range: '100-', length: MIB, start: 100, end: MIB },
  { range: '100-500', length: MIB, start: 100, end: 501 },
  { range: '0-1048575', length: MIB, start: 0, end: MIB },
  { range: '100-10240', length: MIB, start: 100, end: 10_241 },
  // Upstream takes the kubectl binary here: something larger than a piece.
  { range: '100-1024', length: 45 * MIB, start: 100, end: 1025 },
] as const;

let stage: Stage;
beforeAll(async () => {
  stage = await Stage.start({ settings: { seed: { proxy: { prefetch: true } } } });
});
afterAll(async () => stage[Symbol.asyncDispose]());

test.each(SIZES)('%i MiB through the proxy', async (size) => {
  const served = stage.serve(size * MIB);
  const { url, content } = served;
  const answer = await stage.fetch(stage.swarm.peer, url, { headers: TAG });
  expect(answer).toMatchObject({ status: 200, bytes: content.length, sha256: content.sha256, whole: true });
  expect(await wholeTask(stage.swarm.peer, { url, tag: 'proxy' })).toBe(content.sha256);
  expect(copies(stage, served)).toBeLessThanOrEqual(1);
});

test.each(SIZES)('%i MiB through a seed’s proxy that prefetches', async (size) => {
  const served = stage.serve(size * MIB);
  const { url, content } = served;
  const { seed } = stage.swarm;
  const answer = await stage.fetch(seed, url, { headers: TAG });
  expect(answer).toMatchObject({ status: 200, bytes: content.length, sha256: content.sha256, whole: true });
  expect(await wholeTask(seed, { url, tag: 'proxy' })).toBe(content.sha256);
  expect(copies(stage, served)).toBeLessThanOrEqual(1);
});

/** The blocks that a range touches, as a store shows them. */
function blocksOf(start: number, end: number): BlockRun {
  const first = Math.floor(start / BLOCK);
  return { first, count: Math.ceil(end / BLOCK) - first };
}

describe('ranges', () => {
  test.each(RANGES)('$range of $length bytes fetches the blocks that it touches and no more', async (wanted) => {
    const { url, content, path } = stage.serve(wanted.length);
    const tag = `range ${wanted.range}`;
    const headers = { range: `bytes=${wanted.range}`, 'x-dragonfly-tag': tag };
    const answer = await stage.fetch(stage.swarm.peer, url, { headers });
    expect(answer).toMatchObject({ status: 206, sha256: content.sha256Of(wanted.start, wanted.end), whole: true });
    expect(answer.headers['content-range']).toBe(`bytes ${wanted.start}-${wanted.end - 1}/${content.length}`);
    const limit = touched(wanted.start, wanted.end, content.length);
    expect(stage.origin.count(path).bytes).toBeLessThanOrEqual(limit);
    const shown = await shownTask(stage.swarm.peer, { url, tag });
    expect(shown.held).toEqual([blocksOf(wanted.start, wanted.end)]);
    expect(shown.heldBytes).toBeLessThanOrEqual(limit);
    expect(shown.complete).toBe(shown.heldBytes === content.length);
  });

  test.each(RANGES)('$range of $length bytes with prefetch brings the rest afterwards', async (wanted) => {
    const { url, content } = stage.serve(wanted.length);
    const headers = { range: `bytes=${wanted.range}`, ...TAG };
    const { seed } = stage.swarm;
    const answer = await stage.fetch(seed, url, { headers });
    expect(answer).toMatchObject({ status: 206, sha256: content.sha256Of(wanted.start, wanted.end), whole: true });
    expect(await wholeTask(seed, { url, tag: 'proxy' })).toBe(content.sha256);
    const shown = await shownTask(seed, { url, tag: 'proxy' }, '--sha256');
    expect(shown).toMatchObject({ complete: true, heldBytes: content.length, sha256: content.sha256 });
  });

  test('a header asks for prefetch where it is off', async () => {
    const { url, content } = stage.serve(10 * MIB);
    const { peer } = stage.swarm;
    await stage.fetch(peer, url, { headers: { range: 'bytes=5-10', 'x-dragonfly-prefetch': 'true' } });
    expect(await wholeTask(peer, { url })).toBe(content.sha256);
  });

  test('what cannot be satisfied is 416 and harms nobody', async () => {
    const { url, content } = stage.serve(MIB);
    const { peer } = stage.swarm;
    const refused = await stage.fetch(peer, url, { headers: { range: `bytes=${MIB}-` } });
    expect(refused.status).toBe(416);
    expect(refused.headers['content-range']).toBe(`bytes */${MIB}`);
    expect((await stage.fetch(peer, url)).sha256).toBe(content.sha256);
  });

  test('several ranges come as multipart/byteranges', async () => {
    const { url, content } = stage.serve(MIB);
    const answer = await stage.fetch(stage.swarm.peer, url, { headers: { range: 'bytes=0-9,100000-100009' } });
    expect(answer.status).toBe(206);
    expect(answer.headers['content-type']).toMatch(/^multipart\/byteranges; ?boundary=/);
    for (const start of [0, 100_000]) {
      expect(answer.beginning.includes(content.slice(start, start + 10))).toBe(true);
      expect(answer.beginning.toString('latin1')).toContain(`bytes ${start}-${start + 9}/${MIB}`);
    }
  });
});

describe('requests', () => {
  test('HEAD and PUT go through to the origin', async () => {
    const { url, path } = stage.serve(MIB);
    const { peer } = stage.swarm;
    const head = await stage.fetch(peer, url, { method: 'HEAD' });
    expect(head).toMatchObject({ status: 200, bytes: 0 });
    expect(head.headers['content-length']).toBe(`${MIB}`);
    const put = await stage.fetch(peer, url, { method: 'PUT' });
    expect(put.beginning.toString()).toBe('PUT');
    expect(stage.origin.count(path).bytes).toBe(0);
  });

  test('the origin sees none of our headers', async () => {
    const { url, path } = stage.serve(MIB);
    await stage.fetch(stage.swarm.peer, url, { headers: { ...TAG, 'x-dragonfly-use-p2p': 'true' } });
    const names = Object.keys(stage.origin.count(path).headers);
    expect(names.filter((name) => name.startsWith('x-dragonfly'))).toEqual([]);
  });

  test('the X-Dragonfly-Registry header goes before ns', async () => {
    const { path, content } = stage.serve(MIB);
    const { peer } = stage.swarm;
    const headers = { 'x-dragonfly-registry': stage.origin.url };
    const byHeader = await ask(`${peer.proxy}${path}?ns=nowhere.invalid`, { headers });
    expect(byHeader).toMatchObject({ status: 200, sha256: content.sha256 });
    const byName = await ask(`${peer.proxy}${path}?ns=${encodeURIComponent(stage.origin.url)}`);
    expect(byName).toMatchObject({ status: 200, sha256: content.sha256 });
  });

  test('an error of the origin arrives with its status', async () => {
    for (const status of [401, 403, 404]) {
      const { url } = stage.serve(MIB, { status });
      expect((await stage.fetch(stage.swarm.peer, url)).status).toBe(status);
    }
  });

  test('a hit takes nothing from anywhere', async () => {
    const { url, content, path } = stage.serve(5 * MIB);
    const { peer } = stage.swarm;
    await stage.fetch(peer, url);
    await wholeTask(peer, { url });
    const before = stage.origin.count(path).requests;
    const lines = peer.doneLines().length;
    const hit = await stage.fetch(peer, url);
    expect(hit).toMatchObject({ status: 200, sha256: content.sha256 });
    expect(hit.headers['x-dragonfly-task-download-finished']).toBe('true');
    expect(stage.origin.count(path).requests).toBe(before);
    expect(peer.doneLines()).toHaveLength(lines);
  });
});
