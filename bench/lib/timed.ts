import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';

export interface Timed {
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** Bytes of anonymous memory, at most. */
  readonly peakRssAnon: number;
  readonly stdout: string;
}

/** Between two looks at the memory. */
const LOOK_MILLISECONDS = 10;

/** Runs a program to its end: the shell measures its CPU time, which no look at /proc could to the last tick. */
export async function timed(command: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<Timed> {
  const shell = spawn('bash', ['-c', 'TIMEFORMAT="%R %U %S"; time "$@" 2>/dev/null', 'bash', ...command], {
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  shell.stdout.on('data', (bytes) => (stdout += bytes));
  shell.stderr.on('data', (bytes) => (stderr += bytes));
  let peakRssAnon = 0;
  const looking = setInterval(() => {
    peakRssAnon = Math.max(peakRssAnon, rssAnonOfChild(shell.pid as number));
  }, LOOK_MILLISECONDS);
  const [status] = (await once(shell, 'close')) as [number];
  clearInterval(looking);
  if (status !== 0) throw new Error(`${command.join(' ')} ended with status ${status}: ${stderr}`);
  const [seconds, user, system] = (stderr.trim().split('\n').at(-1) ?? '').split(' ').map(Number) as [
    number,
    number,
    number,
  ];
  return { seconds, cpuSeconds: user + system, peakRssAnon, stdout };
}

function rssAnonOfChild(parent: number): number {
  try {
    const child = readFileSync(`/proc/${parent}/task/${parent}/children`, 'utf8').trim().split(' ')[0];
    const found = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${child}/status`, 'utf8'));
    return Number(found?.[1] ?? 0) * 1024;
  } catch {
    // It has not begun, or is gone.
    return 0;
  }
}
