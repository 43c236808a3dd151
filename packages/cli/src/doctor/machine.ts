import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { availableParallelism, release, totalmem } from 'node:os';
import { dirname } from 'node:path';
import { PantalaError } from '@pantala/base';
import { fileSystemOf, selfTest } from '@pantala/linux';
import { formatSize } from '@pantala/service';
import { bad, type Check, good, remark } from './check.ts';

const LEAST_NODE = [26, 10] as const;
/** From here on the kernel asks before a hole of a file is read: lazily loaded images need no FUSE. */
const LAZY_KERNEL = [6, 15] as const;
/** Below this a peer with a few layers fills the disk at once. */
const LITTLE_SPACE = 5 * 1024 ** 3;
/** File systems on which a store is no good idea, with the reason. */
const UNSUITABLE: Readonly<Record<string, string>> = {
  nfs: 'is a network away: its reads are no faster than another peer’s',
  tmpfs: 'is memory, and empty after a restart of the machine',
  overlayfs: 'goes with its container, and copies whole files at the first write',
};

export function checkRuntime(): Check[] {
  return [
    atLeast(process.versions.node, LEAST_NODE)
      ? good('node', process.versions.node)
      : bad(
          'node',
          process.versions.node,
          `run it with Node ${LEAST_NODE.join('.')} or later; ./pantala of a checkout does`,
        ),
    atLeast(release(), LAZY_KERNEL)
      ? good('kernel', release())
      : remark(
          'kernel',
          release(),
          `lazily loaded images go through FUSE below ${LAZY_KERNEL.join('.')}; pulls are the same`,
        ),
    good('processors and memory', `${availableParallelism()} processors, ${formatSize(totalmem())}`),
    checkCgroups(),
    checkDescriptors(),
  ];
}

function checkCgroups(): Check {
  if (!existsSync('/sys/fs/cgroup')) return remark('cgroups', 'none', 'limits of memory and CPU cannot be seen');
  const version = existsSync('/sys/fs/cgroup/cgroup.controllers') ? 2 : 1;
  const limit = version === 2 ? memoryLimit() : undefined;
  return good(
    'cgroups',
    limit === undefined ? `version ${version}` : `version ${version}, at most ${formatSize(limit)} here`,
  );
}

/** `memory.max` of the group that this process is in; undefined without one. */
function memoryLimit(): number | undefined {
  try {
    const group = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '/';
    const text = readFileSync(`/sys/fs/cgroup${group}/memory.max`, 'utf8').trim();
    return text === 'max' ? undefined : Number(text);
  } catch {
    return undefined;
  }
}

/** Each connection and each open task needs one. */
const FEW_DESCRIPTORS = 4096;

function checkDescriptors(): Check {
  const line = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1] ?? 'unknown';
  return line === 'unlimited' || Number(line) >= FEW_DESCRIPTORS
    ? good('file descriptors', line)
    : remark('file descriptors', line, 'raise the limit (LimitNOFILE= of the unit, ulimit -n) for many children');
}

/** Disk space, kind of file system, and the system calls on it, where the store is or will be. */
export async function checkStore(directory: string): Promise<Check[]> {
  const place = existing(directory);
  const { type, freeBytes, totalBytes } = await fileSystemOf(place);
  const space = `${formatSize(freeBytes)} free of ${formatSize(totalBytes)} at ${directory}`;
  const checks = [
    freeBytes < LITTLE_SPACE
      ? bad('disk space', space, 'make room, or name another directory (storage.dir, dataDir)')
      : good('disk space', space),
    UNSUITABLE[type] === undefined
      ? good('file system', type)
      : remark('file system', `${type} ${UNSUITABLE[type]}`, 'put the store on a disk of this machine'),
  ];
  try {
    for (const { call, use, works, reason } of await selfTest(place)) {
      checks.push(works ? good(call, 'works') : remark(call, reason ?? 'does not work', use));
    }
  } catch (error) {
    const { message } = PantalaError.from(error);
    checks.push(bad('writing to the store', message, `let this user write to ${place}`));
  }
  return checks;
}

function existing(directory: string): string {
  return existsSync(directory) ? directory : existing(dirname(directory));
}

/** Whether a port can be opened; one that is taken is fine when it is our own peer's. */
export async function checkPort(
  purpose: string,
  { host, port }: { readonly host: string; readonly port: number },
  ours: boolean,
): Promise<Check> {
  const name = `port ${port} (${purpose})`;
  if (port === 0) return good(name, 'any free one');
  const reason = await listenFailure(host, port);
  if (reason === undefined) return good(name, 'free');
  if (reason !== 'EADDRINUSE')
    return bad(name, `${host}: ${reason}`, 'name another address or port in the configuration');
  return ours
    ? good(name, 'taken by the running peer')
    : bad(name, 'taken by another program', `stop what "ss -ltnp sport = :${port}" shows, or configure another port`);
}

async function listenFailure(host: string, port: number): Promise<string | undefined> {
  const server = createServer();
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  server.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(undefined)));
  return promise;
}

function atLeast(version: string, least: readonly [number, number]): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major > least[0] || (major === least[0] && minor >= least[1]);
}
