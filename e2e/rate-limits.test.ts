import { taskId } from '@pantala/base';
import { until } from '@pantala/testkit';
import { afterEach, describe, expect, test } from 'vitest';
import { FULL, fileSha256, MIB, Stage, stored } from './lib/stage.ts';

let stage: Stage;
afterEach(async () => stage[Symbol.asyncDispose]());

/** Upstream's: 50 MiB at 1 MB/s take more than 25 s, 100 MiB more than 50 s. The quick set has the same proportion. */
const CASES = FULL ? [50, 100] : [4];
const limited = { download: { bandwidthLimit: '1MB' }, upload: { bandwidthLimit: '1MB' } };

describe.each(CASES)('%i MiB at 1 MB/s', (size) => {
  test.each(['get', 'proxy'])('by %s', { timeout: 400_000 }, async (way) => {
    stage = await Stage.start({ settings: { peer: limited, seed: limited } });
    const { url, content } = stage.serve(size * MIB);
    const started = performance.now();
    if (way === 'get') expect(await fileSha256((await stage.get(stage.swarm.peer, url)).output)).toBe(content.sha256);
    else expect((await stage.fetch(stage.swarm.peer, url, { deadline: 300_000 })).sha256).toBe(content.sha256);
    expect((performance.now() - started) / 1000).toBeGreaterThan(size / 2);
  });

  test('a prefetch that is limited keeps nobody waiting', { timeout: 400_000 }, async () => {
    const settings = { peer: { proxy: { prefetch: true, prefetchBandwidthLimit: '1MB' } } };
    stage = await Stage.start({ seeds: 0, settings });
    const { url, content } = stage.serve(size * MIB);
    const { peer } = stage.swarm;
    const started = performance.now();
    const answer = await stage.fetch(peer, url, { headers: { range: 'bytes=100-200' } });
    expect(answer.sha256).toBe(content.sha256Of(100, 201));
    const whole = () => stored(peer, taskId({ url }));
    while ((performance.now() - started) / 1000 < size / 2) expect((await whole())?.complete ?? false).toBe(false);
    await until(async () => (await whole())?.complete, { what: 'the prefetch ends', timeout: size * 3000 });
  });
});
