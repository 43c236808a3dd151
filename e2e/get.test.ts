import { taskId } from '@pantala/base';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { copies, FULL, fileSha256, MIB, Stage, wholeTask } from './lib/stage.ts';

const SIZES = [1, 10, 100, ...(FULL ? [500, 1024] : [])];

describe('pantala get through the swarm', () => {
  let stage: Stage;
  beforeAll(async () => {
    stage = await Stage.start();
  });
  afterAll(async () => stage[Symbol.asyncDispose]());

  test.each(SIZES)('%i MiB without going back to the source', async (size) => {
    const served = stage.serve(size * MIB);
    const { url, content } = served;
    const { seed, peer } = stage.swarm;
    const result = await stage.get(peer, url, '--disable-back-to-source');
    expect(await fileSha256(result.output)).toBe(content.sha256);
    expect(result).toMatchObject({ bytes: content.length, originBytes: 0 });
    expect(await wholeTask(peer, { url })).toBe(content.sha256);
    if (size >= 10) expect(await wholeTask(seed, { url })).toBe(content.sha256);
    expect(copies(stage, served)).toBeLessThanOrEqual(1);
  });

  test.each([1, 10])('%i MiB transferred from the daemon', async (size) => {
    const { url, content } = stage.serve(size * MIB);
    const { output } = await stage.get(stage.swarm.peer, url, '--disable-back-to-source', '--transfer-from-dfdaemon');
    expect(await fileSha256(output)).toBe(content.sha256);
  });

  test.each([
    { option: '--application', identity: { application: 'd7y' } },
    { option: '--tag', identity: { tag: 'd7y' } },
  ])('$option makes a task of its own', async ({ option, identity }) => {
    const { url, content } = stage.serve(MIB);
    const { peer } = stage.swarm;
    const plain = await stage.get(peer, url);
    const named = await stage.get(peer, url, option, 'd7y');
    expect(await fileSha256(plain.output)).toBe(content.sha256);
    expect(await fileSha256(named.output)).toBe(content.sha256);
    expect(taskId({ url, ...identity })).not.toBe(taskId({ url }));
    expect(await wholeTask(peer, { url })).toBe(content.sha256);
    expect(await wholeTask(peer, { url, ...identity })).toBe(content.sha256);
  });

  test('an empty file', async () => {
    const { url, content } = stage.serve(0);
    const { output, bytes } = await stage.get(stage.swarm.peer, url);
    expect(bytes).toBe(0);
    expect(await fileSha256(output)).toBe(content.sha256);
  });

  test('a wrong digest fails and leaves no file', async () => {
    const { url } = stage.serve(MIB);
    const output = stage.scratch.join('wrong');
    const program = await stage.startGet(stage.swarm.peer, url, output, '--digest', `sha256:${'0'.repeat(64)}`);
    expect((await program.exited).code).not.toBe(0);
    await expect(fileSha256(output)).rejects.toThrow();
  });

  test('a second peer gets it from the first and the seed', async () => {
    const served = stage.serve(20 * MIB);
    const { url, content } = served;
    for (const peer of stage.swarm.peers) {
      const { output } = await stage.get(peer, url);
      expect(await fileSha256(output)).toBe(content.sha256);
    }
    expect(copies(stage, served)).toBeLessThanOrEqual(1);
  });
});
