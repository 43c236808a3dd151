import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { layerFaults } from './layers.ts';

/** Types, lint, format and the order of the packages; exits 1 when one of them finds a fault. */
const root = dirname(import.meta.dirname);
const bin = (name: string): string => join(root, 'node_modules', '.bin', name);

const TOOLS: readonly (readonly [string, ...string[]])[] = [
  [bin('tsc'), '--noEmit', '-p', '.'],
  [bin('biome'), 'check', '--diagnostic-level=error', '.'],
  [bin('oxlint'), '--type-aware', '--quiet', '.'],
];

let failed = false;
for (const [command, ...args] of TOOLS) {
  const env = { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}` };
  const { status } = spawnSync(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'], env });
  if (status !== 0) failed = true;
}
for (const fault of layerFaults(root)) {
  console.error(fault);
  failed = true;
}
process.exitCode = failed ? 1 : 0;
