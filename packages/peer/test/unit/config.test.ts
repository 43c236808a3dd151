import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { defaultPeerConfig, loadPeerConfig, readDynconfig } from '../../src/config/index.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pantala-config-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, content: string): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

const TODAY = `
host: {ip: 127.0.0.1, hostname: peer1}
manager: {addr: "http://127.0.0.1:65003"}
seedPeer: {enable: true, type: super}
storage: {dir: /tmp/df/peer1, keep: false, server: {tcpPort: 4105, quicPort: 4006}}
download: {server: {socketPath: /tmp/df/peer1.sock}, bandwidthLimit: 1MB}
upload: {server: {port: 4100}, bandwidthLimit: 10GB}
proxy:
  server: {port: 4101}
  rules: [{regex: 'blobs/sha256.*', useTLS: true, filteredQueryParams: [Expires, Signature]}]
  prefetch: true
  prefetchBandwidthLimit: 1MB
gc: {policy: {taskTTL: 1h, distHighThresholdPercent: 90, diskLowThresholdPercent: 70}}
health: {server: {port: 4103}}
metrics: {server: {port: 4102}}
stats: {server: {port: 4104}}
scheduler: {enableBackToSource: true}
`;

const OLDER = `
verbose: true
pprofPort: 18066
metrics: ":8000"
dataDir: /data
scheduler:
  manager: {enable: true, netAddrs: [{type: tcp, addr: "127.0.0.1:65003"}], seedPeer: {enable: true, clusterID: 3}}
  netAddrs: [{type: tcp, addr: "127.0.0.1:8002"}]
  disableAutoBackSource: true
download:
  prefetch: true
  totalRateLimit: 2048Mi
  calculateDigest: true
  downloadGRPC: {unixListen: {socket: /run/old.sock}}
upload: {rateLimit: 1024Mi, tcpListen: {port: 65002}}
storage: {taskExpireTime: 6h, strategy: io.d7y.storage.v2.simple, multiplex: true, diskGCThresholdPercent: 90}
proxy:
  defaultFilter: 'Expires&Signature&ns'
  security: {insecure: true}
  tcpListen: {listen: 0.0.0.0, port: 65001}
  registryMirror: {dynamic: true, url: https://index.docker.io, insecure: true}
  proxies: [{regx: blobs/sha256.*}, {regx: some-registry, direct: true}]
`;

describe("a peer's file of today's generation", () => {
  it('is compiled with units', () => {
    const { config, warnings } = loadPeerConfig(file('dfdaemon.yaml', TODAY));
    expect(config).toMatchObject({
      generation: 'today',
      host: { ip: '127.0.0.1', hostname: 'peer1' },
      seed: { enabled: true, type: 'super' },
      socketPath: '/tmp/df/peer1.sock',
      upload: { grpc: { port: 4100 }, pieces: { port: 4105 }, rate: 10_000_000_000 },
      download: { rate: 1_000_000, prefetchRate: 1_000_000 },
      manager: { host: '127.0.0.1', port: 65_003 },
      store: { directory: '/tmp/df/peer1', taskTtl: 3_600_000, highPercent: 90, lowPercent: 70 },
      proxy: {
        listen: { port: 4101 },
        prefetch: true,
        rules: [{ regex: 'blobs/sha256.*', useTls: true, filteredQueryParams: ['Expires', 'Signature'] }],
      },
      health: { port: 4103 },
      metrics: { port: 4102 },
      profiles: { port: 4104 },
    });
    expect(
      warnings.map(
        (warning) =>
          warning
            .replace(`${folder}/`, '')
            .replace(/:\d+: /, ': ')
            .split(' has no effect')[0],
      ),
    ).toEqual([
      'dfdaemon.yaml:5: storage.keep: false',
      'dfdaemon.yaml:5: storage.server.quicPort',
      'dfdaemon.yaml:17: scheduler.enableBackToSource',
    ]);
  });

  it('listens on loopback but for what other peers need', () => {
    const config = defaultPeerConfig('today');
    expect(config.upload).toMatchObject({
      grpc: { host: '0.0.0.0', port: 4000 },
      pieces: { host: '0.0.0.0', port: 4005 },
    });
    for (const local of [config.proxy.listen, config.health, config.metrics, config.profiles]) {
      expect(local?.host).toBe('127.0.0.1');
    }
  });

  it('names every mistake at its place', () => {
    const path = file(
      'dfdaemon.yaml',
      'proxy:\n  registryMirorr: {addr: x}\n  rules:\n    - regex: "("\nseedPeer: {type: big}\n',
    );
    expect(() => loadPeerConfig(path)).toThrow(
      new RegExp(
        [
          `${path}:2:3: unknown key "proxy\\.registryMirorr"; the nearest known key is "registryMirror"`,
          `${path}:4:14: .*proxy\\.rules\\[0\\]\\.regex.*`,
          `${path}:5:18: seedPeer\\.type must be one of normal, super, strong, weak, not "big"`,
        ].join('\n'),
      ),
    );
  });
});

describe("a peer's file of the older generation", () => {
  it('is told by its keys and compiled', () => {
    const { config, warnings } = loadPeerConfig(file('dfget.yaml', OLDER));
    expect(config).toMatchObject({
      generation: 'older',
      seed: { enabled: true, type: 'super' },
      host: { schedulerClusterId: 3 },
      log: { verbose: true },
      socketPath: '/run/old.sock',
      upload: { grpc: { port: 65_000 }, pieces: { port: 65_002 }, rate: 1_073_741_824 },
      download: { rate: 2_147_483_648, ratePerPeer: 536_870_912 },
      manager: { host: '127.0.0.1', port: 65_003 },
      schedulers: [{ host: '127.0.0.1', port: 8002 }],
      store: { directory: '/data', taskTtl: 21_600_000, highPercent: 90, lowPercent: 85 },
      origin: { trust: [{ insecure: true, authorities: [] }] },
      proxy: {
        listen: { host: '0.0.0.0', port: 65_001 },
        mirror: { upstream: 'https://index.docker.io', upstreamFrom: ['header'], share: 'layers' },
        rules: [{ regex: 'blobs/sha256.*' }, { regex: 'some-registry', direct: true }],
        defaults: { filteredQueryParams: ['Expires', 'Signature', 'ns'] },
        prefetch: true,
        disableBackToSource: true,
      },
      health: { host: '127.0.0.1', port: 40_901, paths: ['/server/ping'] },
      metrics: { host: '0.0.0.0', port: 8000 },
      profiles: { host: '127.0.0.1', port: 18_066 },
    });
    expect(warnings.map((warning) => warning.split(' ')[1])).toEqual([
      'download.calculateDigest',
      'storage.strategy',
      'storage.multiplex',
    ]);
  });

  it('has its own ports and paths by default', () => {
    expect(defaultPeerConfig('older')).toMatchObject({
      upload: { grpc: { port: 65_000 }, pieces: { port: 65_002 } },
      proxy: { listen: { host: '127.0.0.1', port: 65_001 } },
      health: { port: 40_901 },
      metrics: undefined,
      profiles: undefined,
      socketPath: '/var/run/dfdaemon.sock',
    });
  });

  it('may name the proxy’s part in a file of its own', () => {
    const proxy = file('proxy.yaml', 'registryMirror: {url: https://mirror.example}\nproxiess: []\n');
    const path = file('dfget.yaml', `dataDir: /data\nproxy: ${proxy}\n`);
    expect(() => loadPeerConfig(path)).toThrow(
      `${proxy}:2:1: unknown key "proxiess"; the nearest known key is "proxies"`,
    );
    writeFileSync(proxy, 'registryMirror: {url: https://mirror.example}\n');
    expect(loadPeerConfig(path).config.proxy.mirror?.upstream).toBe('https://mirror.example');
  });
});

describe('dynconfig.yaml', () => {
  it('names schedulers: a list, or one', () => {
    expect(readDynconfig(file('a.yaml', 'scheduler: {addrs: ["10.0.0.1:8002", "[::1]:8003"]}\n')).schedulers).toEqual([
      { host: '10.0.0.1', port: 8002 },
      { host: '::1', port: 8003 },
    ]);
    expect(readDynconfig(file('b.yaml', 'scheduler: {addr: "http://scheduler:8002"}\n')).schedulers).toEqual([
      { host: 'scheduler', port: 8002 },
    ]);
    expect(() => readDynconfig(file('c.yaml', 'schedulers: []\n'))).toThrow(/c\.yaml:1:1: .*"scheduler"/);
  });
});
