import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parse } from 'smol-toml';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { withConfigPath } from '../../src/containerd/config-toml.ts';
import { ALL_REGISTRIES, hostsToml, parseRegistry } from '../../src/containerd/hosts-toml.ts';
import { mirrorRegistries, undoMirror } from '../../src/containerd/mirror.ts';

const DIRECTORY = '/etc/containerd/certs.d';

describe('hosts.toml', () => {
  it('names proxy, registry and header', () => {
    expect(parse(hostsToml(parseRegistry('https://ghcr.io'), 'http://127.0.0.1:4001'))).toEqual({
      server: 'https://ghcr.io',
      host: {
        'http://127.0.0.1:4001': {
          capabilities: ['pull', 'resolve'],
          header: { 'X-Dragonfly-Registry': ['https://ghcr.io'] },
        },
      },
    });
  });

  it('has no header where it stands for every registry', () => {
    expect(parse(hostsToml(ALL_REGISTRIES, 'http://127.0.0.1:4001'))).toEqual({
      host: { 'http://127.0.0.1:4001': { capabilities: ['pull', 'resolve'] } },
    });
  });

  it.each([
    ['ghcr.io', 'ghcr.io', 'https://ghcr.io'],
    ['http://localhost:5000/', 'localhost:5000', 'http://localhost:5000'],
    ['docker.io', 'docker.io', 'https://index.docker.io'],
  ])('understands %s', (text, namespace, server) => expect(parseRegistry(text)).toEqual({ namespace, server }));

  it.each(['', 'https://', 'ftp://x', 'https://u:p@x', 'ghcr.io/library/nginx', 'a b'])('refuses "%s"', (text) => {
    expect(() => parseRegistry(text)).toThrow(/names no registry/);
  });
});

describe("containerd's config.toml", () => {
  const change = (text: string) => withConfigPath(text, DIRECTORY, 'config.toml');

  it.each([
    ['version = 2\n', 'io.containerd.grpc.v1.cri'],
    ['version = 3\n', 'io.containerd.cri.v1.images'],
    ['', 'cri'],
    ['root = "/x"', 'cri'],
  ])('gets the section in the way of its version: %j', (text, plugin) => {
    const patched = change(text) ?? '';
    expect(patched.startsWith(text)).toBe(true);
    expect(parse(patched)).toMatchObject({ plugins: { [plugin]: { registry: { config_path: DIRECTORY } } } });
  });

  it('keeps comments and layout', () => {
    const text = [
      'version = 2 # two',
      '[plugins]',
      '  [plugins."io.containerd.grpc.v1.cri"]',
      '    # images',
      "    [plugins.'io.containerd.grpc.v1.cri'.registry] # here",
      '      # nothing yet',
      '  [plugins."io.containerd.snapshotter.v1.overlayfs"]',
      '    x = 1',
    ].join('\n');
    expect(change(text)).toBe(text.replace('# here\n', `# here\n      config_path = "${DIRECTORY}"\n`));
  });

  it('fills an empty config_path in its place', () => {
    const text = 'version = 3\n[plugins."io.containerd.cri.v1.images".registry]\n  config_path = "" # none\n  x = 1\n';
    expect(change(text)).toBe(text.replace('""', `"${DIRECTORY}"`));
  });

  it('is left alone when it names the directory already', () => {
    const list = `version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "${DIRECTORY}:/etc/docker/certs.d"\n`;
    expect(change(list)).toBeUndefined();
  });

  it.each([
    ['another directory', 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry]\nconfig_path = "/other"\n'],
    ['mirrors', 'version = 2\n[plugins."io.containerd.grpc.v1.cri".registry.mirrors."x"]\nendpoint = ["http://y"]\n'],
    ['a registry in an inline table', 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nregistry = { x = 1 }\n'],
    ['a version from the future', 'version = 9\n'],
    ['no TOML', 'version = \n'],
  ])('is refused with what to do for %s', (_what, text) => {
    expect(() => change(text)).toThrow(/left as it is/);
  });

  it('is not fooled by a header inside a text', () => {
    const text = `version = 2\nx = '''\n[plugins."io.containerd.grpc.v1.cri".registry]\n'''\n`;
    expect(() => change(text)).toThrow(/cannot be changed safely/);
  });
});

describe('init containerd', () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'pantala-containerd-'));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  const options = (over: object = {}) => ({
    proxy: 'http://127.0.0.1:4001',
    registries: [parseRegistry('ghcr.io'), parseRegistry('http://localhost:5000')],
    certsDir: join(root, 'etc/containerd/certs.d'),
    configFile: join(root, 'etc/containerd/config.toml'),
    replace: false,
    ...over,
  });

  function put(path: string, content: string): void {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content, { mode: 0o600 });
  }

  /** Every file with its content, mode and time of change. */
  function snapshot(folder = root): Record<string, unknown> {
    const entries = readdirSync(folder, { withFileTypes: true }).map((entry): [string, unknown] => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return [path, snapshot(path)];
      const { mode, mtimeMs } = statSync(path);
      return [path, [readFileSync(path, 'utf8'), mode, mtimeMs]];
    });
    return Object.fromEntries(entries);
  }

  it('leaves no trace after an undo', () => {
    const before = snapshot();
    const result = mirrorRegistries(options());
    expect(result).toMatchObject({ restartNeeded: true, configLine: expect.stringContaining('certs.d') });
    expect(existsSync(join(root, 'etc/containerd/certs.d/localhost:5000/hosts.toml'))).toBe(true);
    expect(undoMirror(options().certsDir)).toMatchObject({ left: [] });
    expect(snapshot()).toEqual(before);
  });

  it('puts back what was there, with mode and times', () => {
    put(options().configFile, 'version = 2 # mine\n');
    put(join(options().certsDir, 'ghcr.io/hosts.toml'), 'server = "https://mine"\n');
    const before = snapshot();
    expect(() => mirrorRegistries(options())).toThrow(/ghcr\.io\/hosts\.toml was written by somebody else/);
    expect(snapshot()).toEqual(before);
    mirrorRegistries(options({ replace: true }));
    expect(statSync(options().configFile).mode & 0o777).toBe(0o600);
    undoMirror(options().certsDir);
    expect(snapshot()).toEqual(before);
  });

  it('can be repeated, with another proxy too, and still be undone', () => {
    put(options().configFile, 'version = 2 # mine\n');
    const before = snapshot();
    mirrorRegistries(options());
    const again = mirrorRegistries(options({ proxy: 'http://127.0.0.1:65001' }));
    expect(again.restartNeeded).toBe(false);
    expect(readFileSync(join(options().certsDir, 'ghcr.io/hosts.toml'), 'utf8')).toContain(':65001');
    undoMirror(options().certsDir);
    expect(snapshot()).toEqual(before);
  });

  it('does not take away what was changed by hand since', () => {
    put(options().configFile, 'version = 2\n');
    mirrorRegistries(options());
    const changed = join(options().certsDir, 'ghcr.io/hosts.toml');
    writeFileSync(changed, 'server = "https://mine"\n');
    expect(undoMirror(options().certsDir).left).toEqual([changed]);
    expect(readFileSync(changed, 'utf8')).toContain('mine');
    expect(readFileSync(options().configFile, 'utf8')).toBe('version = 2\n');
  });

  it('writes nothing when config.toml cannot be changed', () => {
    put(options().configFile, 'version = 9\n');
    const before = snapshot();
    expect(() => mirrorRegistries(options())).toThrow(/version 9/);
    expect(snapshot()).toEqual(before);
  });
});
