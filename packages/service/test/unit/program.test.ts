import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const fixture = fileURLToPath(new URL('./fixtures/program.ts', import.meta.url));

/** Runs the fixture and sends it the signals once it is up. */
async function run(mode: string, signals: NodeJS.Signals[]): Promise<{ status: number | null; output: string }> {
  const child = spawn(process.execPath, [fixture, mode], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const pending = [...signals];
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (data: string) => {
      output += data;
      const next = /ready\n|stopping\n/.test(data) ? pending.shift() : undefined;
      if (next !== undefined) child.kill(next);
    });
  }
  const [status] = (await once(child, 'close')) as [number | null];
  return { status, output };
}

describe('a program', () => {
  it('stops in order on SIGTERM', async () => {
    expect(await run('orderly', ['SIGTERM'])).toEqual({ status: 0, output: 'ready\nstopping\nstopped\n' });
  });

  it('ends at once on the second signal', async () => {
    expect(await run('hanging', ['SIGINT', 'SIGINT'])).toEqual({ status: 130, output: 'ready\nstopping\n' });
  });

  it('ends at the deadline when it does not stop', async () => {
    const { status } = await run('late', ['SIGTERM']);
    expect(status).toBe(75);
  });

  it('stops in order after an error that nobody caught', async () => {
    const { status, output } = await run('crashing', []);
    expect(status).toBe(70);
    expect(output).toContain('Error: nobody caught me');
    expect(output).toContain('stopped\n');
  });

  it('stops while it is starting', async () => {
    expect(await run('starting', ['SIGTERM'])).toEqual({ status: 0, output: 'ready\n' });
  });
});
