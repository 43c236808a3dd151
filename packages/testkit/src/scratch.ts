import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Folders carry the id of the process that made them: what a killed one left goes when the next one comes. */
const NAME = /^pantala-p(\d+)-/;
const swept = new Set<string>();

/** A temporary folder that goes with its owner. */
export class Scratch implements AsyncDisposable {
  readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** @param parent on another filesystem than the system's temporary one, such as tmpfs for benches */
  static create(name: string, parent = tmpdir()): Scratch {
    sweep(parent);
    return new Scratch(mkdtempSync(join(parent, `pantala-p${process.pid}-${name}-`)));
  }

  join(...parts: readonly string[]): string {
    return join(this.path, ...parts);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A program that was killed a moment ago may still be writing: a few tries are enough.
    rmSync(this.path, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  }
}

/** Removes the folders of processes that are gone, and what was mounted on them or below. */
function sweep(parent: string): void {
  if (swept.has(parent)) return;
  swept.add(parent);
  const mounts = readFileSync('/proc/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' ')[1] ?? '');
  for (const name of readdirSync(parent)) {
    const pid = NAME.exec(name)?.[1];
    const path = join(parent, name);
    if (pid === undefined || isAlive(Number(pid))) continue;
    // What was mounted last lies on top.
    for (const mount of mounts.toReversed()) {
      if (mount === path || mount.startsWith(`${path}/`)) spawnSync('umount', ['-l', mount]);
    }
    rmSync(path, { recursive: true, force: true });
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'EPERM';
  }
}
