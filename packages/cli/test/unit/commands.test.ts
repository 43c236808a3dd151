import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { command } from './command.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pantala-cli-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('the command line', () => {
  it.each([
    'manager',
    'scheduler',
    'peer',
    'up',
    'get',
    'init containerd',
    'doctor',
    'task ls',
    'task stat',
    'task rm',
  ])('has examples and --json in the help of %s', async (name) => {
    const { status, stdout } = await command(...name.split(' '), '--help');
    expect(status).toBe(0);
    expect(stdout).toContain(`  $ pantala ${name}`);
    expect(stdout).toContain('--json');
  });

  it('says on stderr what it does not understand, and ends with 64', async () => {
    const unknown = await command('gett');
    expect(unknown).toMatchObject({ status: 64, stdout: '' });
    expect(unknown.stderr).toContain("unknown command 'gett'");
    expect(await command('up', '--peers', 'many')).toMatchObject({ status: 64, stdout: '' });
    expect((await command('get', 'http://x/')).stderr).toContain('--output');
  });
});

describe('programs', () => {
  it.each(['manager', 'scheduler', 'peer'])('%s names the mistakes of its file and ends with 78', async (role) => {
    const file = join(folder, 'config.yaml');
    writeFileSync(file, 'verbose: true\nmetrix: {}\n');
    const { status, stdout, stderr } = await command(role, '--config', file);
    expect({ status, stdout }).toEqual({ status: 78, stdout: '' });
    expect(stderr).toBe(`pantala ${role}: ${file}:2:1: unknown key "metrix"; the nearest known key is "metrics"\n`);
  });

  it('say that a file is not there and end with 66', async () => {
    const { status, stderr } = await command('peer', '--config', join(folder, 'none.yaml'), '--json');
    expect(status).toBe(66);
    expect(JSON.parse(stderr)).toMatchObject({ error: 'not-found', message: expect.stringContaining('none.yaml') });
  });
});

describe('get', () => {
  const get = (...more: string[]) => command('get', 'http://127.0.0.1:1/f', '-O', join(folder, 'f'), ...more);

  it('says what to do when no peer answers', async () => {
    const { status, stderr } = await get('-e', join(folder, 'none.sock'));
    expect(status).toBe(69);
    expect(stderr).toMatch(/no peer answers on .*none\.sock: start one with "pantala peer"/);
  });

  it('refuses what cannot be meant, with its own exit statuses', async () => {
    expect((await command('get', 'ftp://x/f', '-O', join(folder, 'f'))).status).toBe(64);
    expect((await get('--digest', 'md5:00')).status).toBe(64);
    expect((await get('--header', 'nonsense')).status).toBe(64);
    expect((await get('--timeout', 'soon')).status).toBe(64);
    writeFileSync(join(folder, 'f'), 'there');
    const { status, stderr } = await get();
    expect(status).toBe(73);
    expect(stderr).toContain('--overwrite');
  });
});

describe('init containerd', () => {
  const init = (...more: string[]) =>
    command('init', 'containerd', '--config', join(folder, 'config.toml'), '--json', ...more);

  it('writes and takes back', async () => {
    writeFileSync(join(folder, 'config.toml'), 'version = 2\n');
    const { status, stdout } = await init('--registry', 'https://ghcr.io', '--inject-config-path');
    expect(status).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({
      written: [join(folder, 'certs.d/ghcr.io/hosts.toml'), join(folder, 'config.toml')],
      restartNeeded: true,
      restarted: false,
    });
    const undone = await init('--undo');
    expect(JSON.parse(undone.stdout)).toMatchObject({ restored: [join(folder, 'config.toml')], left: [] });
    expect(existsSync(join(folder, 'certs.d'))).toBe(false);
  });

  it('wants a registry', async () => {
    expect((await init()).status).toBe(64);
  });
});

describe('doctor', () => {
  it('looks at the machine, and ends with 78 when something keeps a peer from working', async () => {
    const config = join(folder, 'dfdaemon.yaml');
    const fine = { storage: { dir: folder }, download: { server: { socketPath: join(folder, 'd.sock') } } };
    writeFileSync(config, JSON.stringify(fine));
    const { stdout } = await command('doctor', '--config', config, '--json');
    const { checks } = JSON.parse(stdout) as { checks: { name: string; state: string; advice?: string }[] };
    expect(checks.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['node', 'kernel', 'disk space', 'sendfile', 'peer']),
    );
    expect(checks.filter(({ state, advice }) => state !== 'good' && advice === undefined)).toEqual([]);

    writeFileSync(config, JSON.stringify({ ...fine, manager: { addr: 'http://127.0.0.1:1' } }));
    const broken = await command('doctor', '--config', config, '--json');
    expect(broken.status).toBe(78);
    expect(JSON.parse(broken.stdout)).toMatchObject({ healthy: false });
  });
});
