import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type MountEntry, mountTable } from '@pantala/linux';

/** A process's place in one hierarchy of control groups: one of version 2, and as many of version 1 as are mounted. */
export interface ControlGroup {
  /** Where the hierarchy is mounted. */
  readonly root: string;
  /** Of the process's group; the root of the hierarchy is the mount point itself. */
  readonly directory: string;
}

/**
 * The groups of this process in every hierarchy that is mounted (cgroups(7)).
 *
 * @param text of /proc/self/cgroup
 */
export function controlGroups(
  mounts: readonly MountEntry[] = mountTable(),
  text: string = readFileSync('/proc/self/cgroup', 'utf8'),
): ControlGroup[] {
  const found: ControlGroup[] = [];
  for (const line of text.split('\n')) {
    const match = /^\d+:([^:]*):(\/.*)$/.exec(line);
    if (match === null) continue;
    const [, controllers, path] = match as unknown as [string, string, string];
    const mount = mounts.findLast((entry) =>
      controllers === '' ? entry.type === 'cgroup2' : entry.type === 'cgroup' && hasAll(entry.options, controllers),
    );
    // A group of processors takes nobody in before it is told which, and ends nobody.
    if (mount !== undefined && !controllers.split(',').includes('cpuset'))
      found.push({ root: mount.target, directory: join(mount.target, path) });
  }
  return found;
}

/** `cpu,cpuacct` or `name=systemd` stand among the options of their mount. */
function hasAll(options: string, controllers: string): boolean {
  const given = new Set(options.split(','));
  return controllers.split(',').every((controller) => given.has(controller));
}

/** Name of the guardian's group, below the root of each hierarchy: no group that is ended as a whole contains it. */
const GUARDIAN_GROUP = 'pantala-guardian';

export function guardianGroups(groups: readonly ControlGroup[]): string[] {
  return groups.map(({ root }) => join(root, GUARDIAN_GROUP));
}

/** Moves this process into groups; those that are gone are left out. */
export function joinGroups(directories: readonly string[]): void {
  for (const directory of directories) {
    try {
      writeFileSync(join(directory, 'cgroup.procs'), String(process.pid));
    } catch {
      // A group that was removed with its container: the worker stays where the guardian is.
    }
  }
}
