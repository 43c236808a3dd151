import { pantala, Scratch } from '@pantala/testkit';
import { expect, test } from 'vitest';

test('a guardian does not take the socket of a living one, and takes that of a dead one', async () => {
  await using scratch = Scratch.create('guardian');
  const socket = scratch.join('run', 'guardian.sock');
  const command = ['guardian', '--socket', socket, '--json'];
  const ready = { ready: /"ready":true/ };
  const first = await pantala(command, ready);
  await using _first = first;
  // Also while it answers nobody.
  for (const signal of ['SIGSTOP', 'SIGCONT'] as const) {
    first.signal(signal);
    await using second = await pantala(command);
    expect((await second.exited).code).not.toBe(0);
    expect(second.tail()).toContain(`a guardian (pid ${first.pid}) listens on ${socket}`);
  }
  await first.kill();
  await using third = await pantala(command, ready);
  expect(third.running).toBe(true);
});
