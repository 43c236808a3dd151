import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Containerd, loopbackPlace, machineImage, pantala, pushImage, Registry, run, Systemd } from '@pantala/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Stage } from './lib/stage.ts';

const image = await machineImage({ bytes: 8e6, layers: 2 });
const [layer] = image.layers;

let stage: Stage;
let registry: Registry;
let systemd: Systemd;
let containerd: Containerd;

/** systemd is given containerd's unit, and starts it. */
async function launch(command: string, args: readonly string[]): Promise<AsyncDisposable> {
  const { stdout } = await run('which', [command]);
  const unit = `[Unit]\nDefaultDependencies=no\n[Service]\nType=notify\nExecStart=${stdout.trim()} ${args.join(' ')}\nKillMode=process\n`;
  systemd = await Systemd.start({ 'containerd.service': unit });
  try {
    await systemd.run('systemctl', ['start', 'containerd']);
    return systemd;
  } catch (error) {
    await systemd[Symbol.asyncDispose]();
    throw error;
  }
}

beforeAll(async () => {
  stage = await Stage.start({
    seeds: 0,
    peers: 1,
    settings: { peer: { proxy: { rules: [{ regex: 'blobs/sha256.*' }] } } },
  });
  registry = await Registry.start({ place: loopbackPlace() });
  await pushImage(image, { registry: registry.url, repository: 'e2e/init', tag: '1' });
  containerd = await Containerd.start({ place: loopbackPlace(), namesHostsDir: false, launch });
});
afterAll(async () => {
  await containerd[Symbol.asyncDispose]();
  await registry[Symbol.asyncDispose]();
  await stage[Symbol.asyncDispose]();
});

/** `pantala init containerd` where `systemctl` reaches containerd's systemd. */
async function init(...args: readonly string[]): Promise<Record<string, unknown>> {
  const files = ['--config', containerd.configFile, '--certs-dir', containerd.hostsDir];
  const place = { address: '', localhost: '', wrap: systemd.wrap.bind(systemd) };
  await using program = await pantala(['init', 'containerd', ...files, '--json', ...args], { place });
  const { code } = await program.exited;
  if (code !== 0) throw new Error(`status ${code}: ${program.tail()}`);
  return JSON.parse(program.stdout) as Record<string, unknown>;
}

const mainPid = () => systemd.run('systemctl', ['show', '-P', 'MainPID', 'containerd']);
const mirrored = ['--registry', '', '--proxy', ''];

test('containerd is restarted when its configuration has changed, and asks the peer from then on', async () => {
  mirrored[1] = registry.url;
  mirrored[3] = stage.swarm.peer.proxy;
  const before = await mainPid();
  const result = await init(...mirrored, '--inject-config-path', '--restart');
  expect(result).toMatchObject({ restartNeeded: true, restarted: true });
  const after = await mainPid();
  expect(after).not.toBe(before);
  expect(Number(after)).toBeGreaterThan(0);
  expect(await containerd.pullByCri(`${registry.host}/e2e/init:1`)).toMatch(/^sha256:/);
  expect(stage.swarm.peer.doneLines().map(({ task }) => `sha256:${task}`)).toContain(layer?.digest);
});

test('where nothing has changed it is left running', async () => {
  const before = await mainPid();
  expect(await init(...mirrored, '--inject-config-path', '--restart')).toMatchObject({ restarted: false });
  expect(await mainPid()).toBe(before);
});

test('undone, it is restarted once more, with the configuration that was there', async () => {
  const before = await mainPid();
  expect(await init('--undo', '--restart')).toMatchObject({ restartNeeded: true, restarted: true });
  expect(await mainPid()).not.toBe(before);
  expect(readFileSync(containerd.configFile, 'utf8')).not.toContain('config_path');
});

test('where systemctl fails it says what to do, and the files are written', async () => {
  const folder = stage.scratch.join('bin');
  mkdirSync(folder);
  writeFileSync(join(folder, 'systemctl'), '#!/bin/sh\nexit 1\n', { mode: 0o755 });
  const args = ['--config', containerd.configFile, '--certs-dir', containerd.hostsDir, ...mirrored];
  const command = ['init', 'containerd', ...args, '--inject-config-path', '--restart'];
  await using program = await pantala(command, { env: { PATH: `${folder}:${process.env.PATH}` } });
  expect((await program.exited).code).toBe(69);
  expect(program.stderr).toContain(
    '"systemctl restart containerd" failed: restart containerd in the way of this machine',
  );
  expect(readFileSync(containerd.configFile, 'utf8')).toContain('config_path');
});
