import { writeFileSync } from 'node:fs';
import { parseNydusdConfig, readNydusdConfig } from '@pantala/lazyfs';
import { Scratch } from '@pantala/testkit';
import { describe, expect, test } from 'vitest';

const V1 = `{
  "device": {
    "backend": {
      "type": "registry",
      "config": {
        "scheme": "https", "host": "ghcr.io", "repo": "some/image", "auth": "dXNlcjpwYXNzd29yZA==",
        "skip_verify": false, "timeout": 7, "connect_timeout": 5, "retry_limit": 2,
        "mirrors": [
          {
            "host": "http://127.0.0.1:65001", "auth_through": false,
            "headers": {"X-Dragonfly-Registry": "https://ghcr.io"},
            "ping_url": "http://127.0.0.1:40901/server/ping", "health_check_interval": 3, "failure_limit": 4
          }
        ],
        "proxy": {"url": "http://127.0.0.1:4001", "ping_url": "", "fallback": true, "check_interval": 6}
      }
    },
    "cache": {"type": "blobcache", "compressed": false, "validate": true, "config": {"work_dir": "/var/cache/nydus"}}
  },
  "mode": "direct", "digest_validate": false, "iostats_files": true, "enable_xattr": true, "amplify_io": 524288,
  "fs_prefetch": {"enable": true, "threads_count": 10, "merging_size": 131072, "bandwidth_rate": 10485760}
}`;

const V2 = `# a comment
version = 2
id = "my_id"

[backend]
type = "localfs"
[backend.localfs]
dir = "/var/lib/blobs"
alt_dirs = ["/mnt/a", "/mnt/b"]

[cache]
type = "filecache"
[cache.filecache]
work_dir = "/cache"

[rafs]
mode = "direct"
batch_size = 0
access_pattern = true
[rafs.prefetch]
enable = true
threads = 2
bandwidth_limit = 1000000
prefetch_all = true
`;

test('JSON of the first generation', () => {
  const { config, warnings } = parseNydusdConfig(V1, 'config.json');
  expect(config).toEqual({
    id: '',
    sources: {
      kind: 'registry',
      registry: {
        registry: 'https://ghcr.io',
        repository: 'some/image',
        insecure: false,
        timeout: 7_000,
        mirrors: [
          {
            host: 'http://127.0.0.1:65001',
            authThrough: false,
            headers: { 'X-Dragonfly-Registry': 'https://ghcr.io' },
            pingUrl: 'http://127.0.0.1:40901/server/ping',
            healthCheckInterval: 3_000,
            failureLimit: 4,
          },
        ],
        proxy: { url: 'http://127.0.0.1:4001', fallback: true, checkInterval: 6_000, plainHttp: false },
      },
      credentials: { kind: 'password', username: 'user', password: 'password' },
    },
    workDirectory: '/var/cache/nydus',
    pieceLength: 524_288,
    prefetch: { enabled: true, lanes: 10, bandwidth: 10_485_760, all: true },
    accounting: { files: true, pattern: false, latest: false },
  });
  expect(warnings).toHaveLength(3);
  expect(warnings[0]).toMatch(/^config\.json:7:\d+: device\.backend\.config\.connect_timeout has no effect: /);
  expect(warnings.join()).toMatch(/retry_limit .*digest_validate/s);
});

test('TOML of the second generation', () => {
  const { config, warnings } = parseNydusdConfig(V2, 'config.toml');
  expect(config).toEqual({
    id: 'my_id',
    sources: { kind: 'local', local: { directories: ['/var/lib/blobs', '/mnt/a', '/mnt/b'] } },
    workDirectory: '/cache',
    pieceLength: 0,
    prefetch: { enabled: true, lanes: 2, bandwidth: 1_000_000, all: true },
    accounting: { files: false, pattern: true, latest: false },
  });
  expect(warnings).toEqual([]);
});

test('JSON of the second generation, with the prefetch of the cache', () => {
  const document = {
    version: 2,
    backend: { type: 'registry', registry: { host: 'localhost:5000', repo: 'a/b', registry_token: 'secret' } },
    cache: { type: 'blobcache', prefetch: { enable: true, threads: 3 } },
  };
  const { config } = parseNydusdConfig(JSON.stringify(document), 'config.json', { IMAGE_PULL_AUTH: 'eDp5' });
  expect(config.sources).toMatchObject({
    registry: { registry: 'http://localhost:5000' },
    credentials: { kind: 'registry', token: 'secret' },
  });
  expect(config.prefetch).toEqual({ enabled: true, lanes: 3, bandwidth: undefined, all: false });
});

test('credentials of the environment go before those of the file', () => {
  const { config } = parseNydusdConfig(V1, 'config.json', {
    IMAGE_PULL_AUTH: Buffer.from('other:pass').toString('base64'),
  });
  expect(config.sources).toMatchObject({ credentials: { kind: 'password', username: 'other', password: 'pass' } });
});

describe('a mistake', () => {
  test.each([
    [
      'an unknown key in JSON',
      V1.replace('"amplify_io"', '"amplify_i0"'),
      /^f:20:\d+: unknown key "amplify_i0"; the nearest known key is "amplify_io"$/m,
    ],
    [
      'an unknown key in TOML',
      V2.replace('bandwidth_limit', 'bandwith_limit'),
      /^f:23:1: unknown key "rafs\.prefetch\.bandwith_limit"; the nearest known key is "bandwidth_limit"$/m,
    ],
    ['an unknown table in TOML', `${V2}\n[rafs.prefetsh]\nenable = true\n`, /^f:26:2: unknown key "rafs\.prefetsh"/m],
    [
      'a wrong value in TOML',
      V2.replace('threads = 2', 'threads = "two"'),
      /^f:22:1: rafs\.prefetch\.threads must be a whole number/m,
    ],
    [
      'a back end that is none',
      V2.replace('type = "localfs"', 'type = "ftp"'),
      /^f:6:1: back end "ftp" is not known here; known: registry, localfs/m,
    ],
    ['object storage', V1.replace('"type": "registry"', '"type": "oss"'), /object storage are read through a registry/],
    [
      'credentials that are none',
      V1.replace('dXNlcjpwYXNzd29yZA==', 'bm9jb2xvbg=='),
      /auth must be user:password in base64/,
    ],
    ['a host without a scheme', V1.replace('"http://127.0.0.1:65001"', '"127.0.0.1:65001"'), /must begin with http/],
    ['no repository', V1.replace('some/image', ''), /repo is missing/],
    [
      'a list where a text should be',
      V2.replace('dir = "/var/lib/blobs"', 'dir = ["a"]'),
      /^f:8:1: backend\.localfs\.dir must be a text/m,
    ],
    ['too much at once', V1.replace('524288', '999999999'), /amplify_io is 999999999; at most 268435456/],
    ['TOML that is none', `${V2}\n[unclosed`, /^f:26:\d+: /],
    ['another version', V2.replace('version = 2', 'version = 3'), /^f:2:1: version 3 is not known/m],
  ])('is told with its place: %s', (_what, text, message) => {
    expect(() => parseNydusdConfig(text, 'f')).toThrow(message);
  });

  test('never shows a secret', () => {
    const wrong = V1.replace('"dXNlcjpwYXNzd29yZA=="', '["dXNlcjpwYXNzd29yZA=="]');
    try {
      parseNydusdConfig(wrong, 'f');
      expect.unreachable();
    } catch (error) {
      expect(String(error)).not.toContain('dXNl');
    }
  });
});

test('what has no meaning here is named once each, with its reason, and nothing else', () => {
  const text = V2.replace('[cache]', '[overlay]\nupper_dir = "/u"\n[cache]\ncompressed = true').replace(
    'work_dir',
    'disable_indexed_map = true\nenable_encryption = false\nwork_dir',
  );
  const { warnings } = parseNydusdConfig(text, 'f');
  expect(warnings.map((line) => line.split(' ')[1])).toEqual([
    'overlay',
    'cache.compressed:',
    'cache.filecache.disable_indexed_map',
    'cache.filecache.enable_encryption',
  ]);
});

test('a file is read from disk; one that is not there is named', async () => {
  await using scratch = Scratch.create('config');
  writeFileSync(scratch.join('nydusd.toml'), V2);
  expect(readNydusdConfig(scratch.join('nydusd.toml')).config.id).toBe('my_id');
  expect(() => readNydusdConfig(scratch.join('none.json'))).toThrow(/cannot read the configuration file .*none\.json/);
});

test('dotted and quoted keys, arrays of tables and texts of several lines keep their places', () => {
  const text = [
    'version = 2',
    'backend.type = "registry"',
    "backend.'registry'.host = 'h'",
    'backend.registry.repo = """',
    'not = a key"""',
    '[[backend.registry.mirrors]]',
    'host = "http://a"',
    '[[backend.registry.mirrors]]',
    'hosd = "http://b"',
  ].join('\n');
  expect(() => parseNydusdConfig(text, 'f')).toThrow(
    /f:9:1: unknown key "backend\.registry\.mirrors\[1\]\.hosd"; the nearest known key is "host"/,
  );
});
