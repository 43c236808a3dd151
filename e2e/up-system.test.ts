import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ask, Content, loopbackPlace, Origin, type Program, pantala, Scratch, until } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { MIB } from './lib/stage.ts';

const CHART = join(import.meta.dirname, 'fixtures', 'chart-config.yaml');
/** Where nobody but the program under test is to see what it writes. */
const FOLDERS = ['/etc/containerd', '/run', '/var/lib', '/var/log'];
const CONFIG = 'version = 2\n# by hand\n';

describe('pantala up without a folder of its own', () => {
  let scratch: Scratch;
  let origin: Origin;
  let program: Program;

  beforeAll(async () => {
    scratch = Scratch.create('up-system');
    origin = await Origin.start({ host: loopbackPlace().address });
    const script = [
      'mount --make-rprivate /',
      ...FOLDERS.map((folder) => `mkdir -p ${folder} && mount -t tmpfs tmpfs ${folder}`),
      `printf %s '${CONFIG}' > /etc/containerd/config.toml`,
      'trap "kill -TERM \\$child" TERM',
      '"$@" & child=$!',
      'wait $child || true',
      'wait $child && status=0 || status=$?',
      `cp -r /etc/containerd ${scratch.join('afterwards')}`,
      'exit $status',
    ].join('\n');
    const place = {
      address: '',
      localhost: '',
      wrap: (command: string, args: readonly string[]) =>
        ['unshare', ['--mount', 'bash', '-ec', script, 'up', command, ...args]] as const,
    };
    program = await pantala(['up', '-f', CHART, '--json'], { place, ready: /"ready":true/ });
  });
  afterAll(async () => {
    await program[Symbol.asyncDispose]();
    await origin[Symbol.asyncDispose]();
    await scratch[Symbol.asyncDispose]();
  });

  /** A path as the program sees it. */
  const seen = (path: string): string => `/proc/${program.pid}/root${path}`;

  test('its logs, its store and its sockets are where a Dragonfly of that generation has them', async () => {
    const content = new Content(MIB, 'up-system');
    const path = `/v2/library/x/blobs/sha256:${content.sha256}`;
    origin.serve(path, content);
    const headers = { 'x-dragonfly-registry': origin.url };
    const answer = await ask(`http://127.0.0.1:65001${path}`, { headers });
    expect(answer).toMatchObject({ status: 200, sha256: content.sha256 });
    const log = seen('/var/log/dragonfly/daemon/core.log');
    await until(() => existsSync(log) && readFileSync(log, 'utf8').includes('peer task done'), {
      what: 'the line that operators look for is written',
    });
    expect(existsSync(seen('/var/lib/dragonfly/store/journal'))).toBe(true);
    expect(existsSync(seen('/run/dfdaemon.sock'))).toBe(true);
  });

  test('containerd is told of the peer, and an orderly stop takes that back', async () => {
    const hosts = '/etc/containerd/certs.d/ghcr.io/hosts.toml';
    expect(readFileSync(seen(hosts), 'utf8')).toContain('http://127.0.0.1:65001');
    expect(readFileSync(seen('/etc/containerd/config.toml'), 'utf8')).toContain(
      'config_path = "/etc/containerd/certs.d"',
    );
    expect((await program.stop(30_000)).code).toBe(0);
    expect(existsSync(scratch.join('afterwards/certs.d'))).toBe(false);
    expect(readFileSync(scratch.join('afterwards/config.toml'), 'utf8')).toBe(CONFIG);
  });
});
