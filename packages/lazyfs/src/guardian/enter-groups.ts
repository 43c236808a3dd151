import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Makes control groups and moves this process into them. @returns those that it could not join, with the reason */
export function enterGroups(directories: readonly string[]): string[] {
  return directories.flatMap((directory) => {
    try {
      mkdirSync(directory, { recursive: true });
      writeFileSync(join(directory, 'cgroup.procs'), String(process.pid));
      return [];
    } catch (error) {
      return [`${directory}: ${error instanceof Error ? error.message : String(error)}`];
    }
  });
}
