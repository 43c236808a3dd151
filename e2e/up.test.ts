import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ask, Content, loopbackPlace, Origin, type Program, pantala, Scratch, until } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { MIB } from './lib/stage.ts';

interface Ready {
  readonly ready: true;
  readonly peers: readonly {
    readonly name: string;
    readonly proxy: string;
    readonly socket: string;
    readonly log: string;
  }[];
  readonly seed: { readonly proxy: string; readonly socket: string; readonly log: string };
  readonly scheduler: string;
  readonly manager: string;
}

const CHART = join(import.meta.dirname, 'fixtures', 'chart-config.yaml');

describe('pantala up from the values file of a chart, unchanged', () => {
  let scratch: Scratch;
  let program: Program;
  let origin: Origin;
  let ready: Ready;

  beforeAll(async () => {
    scratch = Scratch.create('up');
    origin = await Origin.start({ host: loopbackPlace().address });
    program = await pantala(['up', '-f', CHART, '--dir', scratch.path, '--json'], { ready: /"ready":true/ });
    ready = JSON.parse(program.stdout.split('\n').find((line) => line.includes('"ready"')) ?? '') as Ready;
  });
  afterAll(async () => {
    await program[Symbol.asyncDispose]();
    await origin[Symbol.asyncDispose]();
    await scratch[Symbol.asyncDispose]();
  });

  test('it says where everything is', () => {
    const [peer] = ready.peers;
    expect(peer?.proxy).toMatch(/^http:\/\/[\d.]+:65001$/);
    for (const address of [ready.seed.proxy, ready.scheduler, ready.manager])
      expect(address).toMatch(/^http:\/\/.+:\d+$/);
    expect(peer?.log.startsWith(scratch.path)).toBe(true);
    expect(existsSync(peer?.socket ?? '')).toBe(true);
  });

  test('a layer through the mirror writes the line that the document greps for', async () => {
    const content = new Content(9 * MIB, 'up');
    origin.serve(`/v2/library/x/blobs/sha256:${content.sha256}`, content);
    const [peer] = ready.peers;
    const url = `${peer?.proxy}/v2/library/x/blobs/sha256:${content.sha256}`;
    const answer = await ask(url, { headers: { 'x-dragonfly-registry': origin.url } });
    expect(answer).toMatchObject({ status: 200, sha256: content.sha256 });
    const log = join(scratch.path, 'log', 'daemon', 'core.log');
    const line = await until(
      () =>
        readFileSync(log, 'utf8')
          .split('\n')
          .find((text) => text.includes('peer task done') && text.includes(content.sha256)),
      { what: 'the line is written' },
    );
    expect(Object.keys(JSON.parse(line) as object).slice(0, 8)).toEqual([
      'level',
      'ts',
      'caller',
      'msg',
      'peer',
      'task',
      'component',
      'trace',
    ]);
    expect(existsSync(join(scratch.path, 'log', 'seed-peer'))).toBe(true);
  });

  test('health, profiles and metrics are where the file has them', async () => {
    expect((await ask('http://127.0.0.1:40901/server/ping')).status).toBe(200);
    for (const name of ['manager', 'scheduler', 'seed-peer', 'dfdaemon']) {
      expect((await ask(`http://127.0.0.1:18066/${name}/debug/pprof/heap`)).status).toBe(200);
      const metrics = await until(() => ask(`http://127.0.0.1:18066/${name}/metrics`).catch(() => undefined), {
        what: `${name} has metrics`,
      });
      expect(metrics.beginning.toString()).toContain('# TYPE');
    }
  });

  test('containerd’s mirror file is written below the folder', () => {
    const path = join(scratch.path, 'etc', 'containerd', 'certs.d', 'ghcr.io', 'hosts.toml');
    expect(readFileSync(path, 'utf8')).toContain('http://127.0.0.1:65001');
  });

  test('SIGTERM ends it in order', async () => {
    expect(await program.stop()).toMatchObject({ code: 0 });
  });
});
