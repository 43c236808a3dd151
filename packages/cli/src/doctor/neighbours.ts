import { execFile } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createClient, formatRpcAddress, healthV1, type RpcAddress, type RpcTls } from '@pantala/api';
import { PantalaError } from '@pantala/base';
import { configPathOf } from '../containerd/index.ts';
import { bad, type Check, good, remark } from './check.ts';

/** Milliseconds for an answer of a program that is well. */
const ANSWER_DEADLINE = 3000;

/** Whether a gRPC program says that it serves. */
async function serves(address: RpcAddress, tls?: RpcTls): Promise<string | undefined> {
  try {
    using client = createClient(healthV1.Health, address, { tls });
    const { status } = await client.check({}, { deadline: ANSWER_DEADLINE });
    return status === healthV1.HealthCheckResponse_ServingStatus.SERVING ? undefined : 'it says that it is not serving';
  } catch (error) {
    return PantalaError.from(error).message;
  }
}

export async function isServing(address: RpcAddress): Promise<boolean> {
  return (await serves(address)) === undefined;
}

export function checkPeer(socket: string, alive: boolean): Check {
  return alive
    ? good('peer', `answers on ${socket}`)
    : remark('peer', `none answers on ${socket}`, 'start one: pantala peer --config FILE, or pantala up');
}

/** @param tls what it must be shown, where it asks for that */
export async function checkServer(name: string, address: RpcAddress, tls: RpcTls | undefined): Promise<Check> {
  const reason = await serves(address, tls);
  const place = formatRpcAddress(address);
  return reason === undefined
    ? good(name, `answers on ${place}`)
    : bad(name, `${place}: ${reason}`, `start it, or correct its address; until then peers ask the origin themselves`);
}

/** Whether containerd is there, of which version, and whether its pulls come to the peer. */
export async function checkContainerd(configFile: string): Promise<Check[]> {
  const version = await versionOf('containerd');
  if (version === undefined) {
    return [remark('containerd', 'not installed', 'without it, pantala get and the proxy work all the same')];
  }
  const checks = [good('containerd', version)];
  if (!existsSync(configFile)) {
    checks.push(remark('containerd’s registries', `there is no ${configFile}`, ADVICE));
    return checks;
  }
  const text = readFileSync(configFile, 'utf8');
  if (/^\s*disabled_plugins\s*=\s*\[[^\]]*["']cri["']/m.test(text)) {
    checks.push(
      bad(
        'containerd’s CRI',
        `disabled in ${configFile}`,
        'take "cri" out of disabled_plugins, or kubelet and crictl cannot pull',
      ),
    );
  }
  const directory = configPathOf(text);
  checks.push(
    directory === undefined
      ? remark('containerd’s registries', `${configFile} names no directory of hosts.toml files`, ADVICE)
      : checkHosts(directory),
  );
  return checks;
}

const ADVICE = 'pantala init containerd --registry https://ghcr.io --inject-config-path';

function checkHosts(directory: string): Check {
  const mirrored = (existsSync(directory) ? readdirSync(directory) : []).filter((host) => {
    const path = join(directory, host, 'hosts.toml');
    return existsSync(path) && /X-Dragonfly-Registry|127\.0\.0\.1:(?:4001|65001)/i.test(readFileSync(path, 'utf8'));
  });
  return mirrored.length > 0
    ? good('containerd’s registries', `${mirrored.join(', ')} through a peer (${directory})`)
    : remark('containerd’s registries', `none in ${directory} goes through a peer`, ADVICE);
}

async function versionOf(program: string): Promise<string | undefined> {
  try {
    const { stdout } = await promisify(execFile)(program, ['--version'], { timeout: ANSWER_DEADLINE });
    return stdout.trim();
  } catch {
    return undefined;
  }
}
