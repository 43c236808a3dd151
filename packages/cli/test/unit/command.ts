import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));

export interface CommandResult {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Starts the command in a process of its own. */
export function startCommand(args: readonly string[]): ChildProcess & { readonly result: Promise<CommandResult> } {
  const child = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', MAIN, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const result = once(child, 'close').then(([status]) => ({ status: status as number | null, stdout, stderr }));
  return Object.assign(child, { result });
}

/** Runs the command to its end. */
export function command(...args: readonly string[]): Promise<CommandResult> {
  return startCommand(args).result;
}
