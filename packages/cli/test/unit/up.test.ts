import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { FreePorts } from '../../src/up/ports.ts';
import { readValues } from '../../src/up/values.ts';
import { command, startCommand } from './command.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'pantala-up-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function values(content: string): string {
  const path = join(folder, 'values.yaml');
  writeFileSync(path, content);
  return path;
}

/** As quick starts of the older chart have it. */
const QUICK_START = `
containerRuntime:
  containerd:
    enable: true
    injectConfigPath: true
    registries:
      - 'https://ghcr.io'
scheduler:
  image: dragonflyoss/scheduler
  replicas: 1
  metrics: {enable: true}
  config: {verbose: true, pprofPort: 18066}
seedPeer:
  replicas: 3
  metrics: {enable: true}
  config: {verbose: true, pprofPort: 18066, download: {prefetch: true}}
dfdaemon:
  metrics: {enable: true}
  config:
    verbose: true
    pprofPort: 18066
    proxy:
      tcpListen: {listen: 0.0.0.0, port: 65001}
      registryMirror: {dynamic: true, url: https://index.docker.io}
      proxies: [{regx: blobs/sha256.*}]
  hostNetwork: true
manager:
  metrics: {enable: true}
  config: {verbose: true, pprofPort: 18066}
`;

describe("a chart's values", () => {
  it('have every effect that they can have on one machine', () => {
    const read = readValues(values(QUICK_START));
    expect(read).toMatchObject({
      generation: 'older',
      manager: { operation: { verbose: true, metrics: { port: 8000 }, profiles: { port: 18_066 } } },
      scheduler: { operation: { verbose: true, profiles: { port: 18_066 } } },
      seed: { log: { verbose: true }, proxy: { prefetch: true }, profiles: { port: 18_066 } },
      peer: {
        proxy: { listen: { host: '0.0.0.0', port: 65_001 }, prefetch: false, rules: [{ regex: 'blobs/sha256.*' }] },
        health: { port: 40_901, paths: ['/server/ping'] },
        metrics: { port: 8000 },
      },
      containerd: {
        registries: [{ namespace: 'ghcr.io', server: 'https://ghcr.io' }],
        configFile: '/etc/containerd/config.toml',
        injectConfigPath: true,
      },
    });
    expect(read.warnings.map((warning) => warning.replace(/^.*?: /, ''))).toEqual([
      'scheduler.image has no effect: Pantala’s own programs run here',
      'seedPeer.replicas: one machine runs one of these, not 3',
      'dfdaemon.hostNetwork has no effect: it means something on Kubernetes only',
    ]);
  });

  it('of today’s chart are known by their names', () => {
    const read = readValues(values('client: {config: {proxy: {prefetch: true}}}\nseedClient: {enable: false}\n'));
    expect(read).toMatchObject({ generation: 'today', peer: { proxy: { listen: { port: 4001 }, prefetch: true } } });
    expect(read.seed).toBeUndefined();
  });

  it('are refused with the place of each unknown key', () => {
    expect(() => readValues(values('dfdaemon:\n  config:\n    proxi: {}\nmanagr: {}\n'))).toThrow(
      /values\.yaml:3:5: unknown key "dfdaemon\.config\.proxi".*"proxy"\n.*values\.yaml:4:1: unknown key "managr".*"manager"/,
    );
  });
});

describe('pantala up', () => {
  it('runs everything below one directory and leaves nothing running', async () => {
    const ports = new FreePorts();
    const [proxy, grpc, pieces, health, operators] = [
      await ports.take(),
      await ports.take(),
      await ports.take(),
      await ports.take(),
      await ports.take(),
    ];
    const file = values(`
containerRuntime: {containerd: {enable: true, injectConfigPath: true, registries: ['https://ghcr.io']}}
seedPeer: {config: {verbose: true}}
manager: {config: {pprofPort: ${operators}}}
dfdaemon:
  config:
    verbose: true
    pprofPort: ${operators}
    proxy: {tcpListen: {port: ${proxy}}}
    upload: {tcpListen: {port: ${pieces}}}
    download: {peerGRPC: {tcpListen: {port: ${grpc}}}}
    health: {tcpListen: {port: ${health}}}
`);
    const dir = join(folder, 'swarm');
    const content = Buffer.alloc(3_000_000, 'Pantala flavescens ');
    await using origin = createServer((_request, response) => response.end(content)).listen(0, '127.0.0.1');
    await once(origin, 'listening');
    const { port } = origin.address() as { port: number };

    const up = startCommand(['up', '-f', file, '--dir', dir, '--peers', '2', '--json']);
    const [line] = (await Promise.race([
      once(createInterface({ input: up.stdout as NodeJS.ReadableStream }), 'line'),
      up.result.then(({ stderr }) => Promise.reject(new Error(stderr))),
    ])) as [string];
    const ready = JSON.parse(line) as Ready;
    try {
      expect(ready).toMatchObject({
        ready: true,
        peers: [
          {
            name: 'dfdaemon',
            proxy: `http://127.0.0.1:${proxy}`,
            socket: join(dir, 'run/dfdaemon.sock'),
            log: join(dir, 'log/daemon/core.log'),
          },
          { name: 'dfdaemon-2' },
        ],
        seed: { log: join(dir, 'log/seed-peer/core.log') },
        scheduler: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
        manager: expect.stringMatching(/^http:\/\/127\.0\.0\.1:\d+$/),
      });
      expect((await fetch(`http://127.0.0.1:${health}/server/ping`)).status).toBe(200);
      for (const path of [
        'metrics',
        'manager/metrics',
        'seed-peer/metrics',
        'scheduler/metrics',
        'manager/debug/pprof/heap',
        'debug/pprof/heap',
      ]) {
        expect((await fetch(`http://127.0.0.1:${operators}/${path}`)).status, path).toBe(200);
      }
      expect(readFileSync(join(dir, 'etc/containerd/certs.d/ghcr.io/hosts.toml'), 'utf8')).toContain(`:${proxy}"`);

      const url = `http://127.0.0.1:${port}/file`;
      for (const [index, { socket }] of ready.peers.entries()) {
        const output = join(folder, `output-${index}`);
        const { status, stdout, stderr } = await command('get', url, '-O', output, '-e', socket, '--json');
        expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
        expect(JSON.parse(stdout)).toMatchObject({ bytes: content.length, digest: expect.stringMatching(/^sha256:/) });
        expect(readFileSync(output).equals(content)).toBe(true);
      }
      const [first] = ready.peers;
      const { stdout } = await command('task', 'ls', '-e', first?.socket ?? '', '--json');
      const { id } = JSON.parse(stdout) as { id: string };
      const stat = await command('task', 'stat', id, '--sha256', '-e', first?.socket ?? '', '--json');
      expect(JSON.parse(stat.stdout)).toMatchObject({ url, complete: true, heldBytes: content.length });
      expect((await command('task', 'rm', id, '-e', first?.socket ?? '')).status).toBe(0);
      expect((await command('task', 'stat', id, '-e', first?.socket ?? '')).status).toBe(66);
    } finally {
      up.kill('SIGTERM');
    }
    const { status, stdout } = await up.result;
    expect({ status, lines: stdout.trimEnd().split('\n').length }).toEqual({ status: 0, lines: 1 });
    await expect(fetch(`http://127.0.0.1:${health}/server/ping`)).rejects.toThrow();
    expect(existsSync(join(dir, 'etc'))).toBe(false);
  });

  it('says which program could not be started and stops the others', async () => {
    await using taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as { port: number };
    const file = values(
      `dfdaemon: {config: {proxy: {tcpListen: {port: ${port}}}, health: {tcpListen: {port: 0}}, upload: {tcpListen: {port: 0}}, download: {peerGRPC: {tcpListen: {port: 0}}}}}\n`,
    );
    const { status, stdout, stderr } = await command('up', '-f', file, '--dir', join(folder, 'failing'), '--json');
    expect({ status, stdout }).toEqual({ status: 69, stdout: '' });
    expect(stderr).toContain(String(port));
    expect(stderr).toContain('dfdaemon ended');
  });
});

interface Ready {
  readonly peers: readonly { readonly name: string; readonly socket: string }[];
}
