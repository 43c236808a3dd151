import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export interface TestRegistry extends AsyncDisposable {
  readonly url: string;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as { port: number };
  server.close();
  await once(server, 'close');
  return port;
}

/** The distribution registry on a free port. `auth` goes into its configuration as it is. */
export async function startRegistry(
  auth: (directory: string) => object | undefined = () => undefined,
): Promise<TestRegistry> {
  const directory = mkdtempSync(join(tmpdir(), 'registry-'));
  const port = await freePort();
  const section = auth(directory);
  const config = {
    version: 0.1,
    log: { level: 'error' },
    storage: { filesystem: { rootdirectory: join(directory, 'data') }, delete: { enabled: true } },
    http: { addr: `127.0.0.1:${port}` },
    ...(section === undefined ? {} : { auth: section }),
  };
  const path = join(directory, 'config.yml');
  // JSON is YAML.
  writeFileSync(path, JSON.stringify(config));
  const child = spawn('/usr/bin/docker-registry', ['serve', path], { stdio: 'ignore' });
  const url = `http://127.0.0.1:${port}`;
  for (;;) {
    const answered = await fetch(`${url}/v2/`).then(
      () => true,
      () => false,
    );
    if (answered) break;
    if (child.exitCode !== null) throw new Error(`docker-registry ended with ${child.exitCode}`);
    await sleep(20);
  }
  return {
    url,
    async [Symbol.asyncDispose]() {
      child.kill('SIGKILL');
      await once(child, 'exit');
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

export function htpasswd(username: string, password: string): (directory: string) => object {
  return (directory) => {
    const path = join(directory, 'htpasswd');
    writeFileSync(path, execFileSync('/usr/bin/htpasswd', ['-Bbn', username, password]));
    return { htpasswd: { realm: 'test', path } };
  };
}
