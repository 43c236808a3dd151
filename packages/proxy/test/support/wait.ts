import { setTimeout as sleep } from 'node:timers/promises';

/** Resolves as soon as `holds` is true; the test's own time-out ends a wait for what never comes. */
export async function waitFor(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await sleep(5);
}
