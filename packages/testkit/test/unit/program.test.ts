import { join } from 'node:path';
import { expect, test } from 'vitest';
import { installed, Program, run, until, usageOf } from '../../src/index.ts';

test('a program is ready when it says so, and its end is known', async () => {
  const script = "console.log('ready'); setInterval(() => {}, 1000)";
  await using program = await Program.start(process.execPath, ['-e', script], { ready: /ready/ });
  expect(program.running).toBe(true);
  const usage = program.usage();
  expect(usage.rssAnon).toBeGreaterThan(1e6);
  expect(usage.rss).toBeGreaterThanOrEqual(usage.rssAnon);
  expect(await program.stop()).toMatchObject({ signal: 'SIGTERM' });
  expect(usageOf(program.pid)).toBeUndefined();
});

test('a program that ends instead of being ready says why', async () => {
  const script = "console.error('no such thing'); process.exit(3)";
  const starting = Program.start(process.execPath, ['-e', script], { ready: /ready/ });
  await expect(starting).rejects.toThrow(/no such thing/);
});

test('a command that fails is an error with its output, unless it may', async () => {
  await expect(run('sh', ['-c', 'echo broken >&2; exit 4'])).rejects.toThrow(/status 4\nbroken/);
  expect(await run('sh', ['-c', 'exit 4'], { check: false })).toMatchObject({ code: 4 });
  expect(await run('no-such-command-here', [], { check: false })).toMatchObject({ code: 127 });
});

test.skipIf(!installed('setpriv'))('programs end with the one that started them, even when it is killed', async () => {
  const module = join(import.meta.dirname, '../../src/index.ts');
  const script = `
    const { Program } = await import(${JSON.stringify(module)});
    const child = await Program.start('sleep', ['1000']);
    console.log('child ' + child.pid + '.');
    setInterval(() => {}, 1000);`;
  await using parent = await Program.start(process.execPath, ['--input-type=module', '-e', script], {
    ready: /child \d+\./,
  });
  const pid = Number(/child (\d+)\./.exec(parent.stdout)?.[1]);
  await until(() => usageOf(pid) !== undefined, { what: 'the child runs' });
  await parent.kill();
  await until(() => usageOf(pid) === undefined, { what: 'the child is gone' });
});
