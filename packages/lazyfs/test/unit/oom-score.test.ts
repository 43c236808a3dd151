import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const MODULE = join(import.meta.dirname, '../../src/guardian/oom-score.ts');

/** What an expression gives in a process of its own, whose score stays its own. */
function inProcess(expression: string): unknown {
  const script = `import * as oom from ${JSON.stringify(MODULE)}; console.log(JSON.stringify(${expression}))`;
  return JSON.parse(execFileSync(process.execPath, ['--input-type=module', '-e', script]).toString());
}

test.skipIf(process.platform !== 'linux')('a process may offer itself, and take that back', () => {
  expect(inProcess('[oom.setOomScore(700), oom.oomScore(), oom.setOomScore(0), oom.oomScore()]')).toEqual([
    true,
    700,
    true,
    0,
  ]);
});

test.skipIf(process.platform !== 'linux')('a guardian is spared, or at least not offered as its worker was', () => {
  const [allowed, spared] = inProcess('[oom.setOomScore(-1000), (oom.setOomScore(500), oom.spareFromOom())]') as [
    boolean,
    number,
  ];
  expect(spared).toBe(allowed ? -1000 : 0);
});

test.skipIf(process.platform !== 'linux')(
  'a worker offers itself before a guardian that may be taken, and only then',
  () => {
    expect(inProcess('[oom.offerBefore(-1000), oom.oomScore()]')).toEqual([null, 0]);
    expect(inProcess('[oom.offerBefore(0), oom.oomScore()]')).toEqual([null, 500]);
    expect(inProcess('[oom.offerBefore(300), oom.oomScore()]')).toEqual([null, 800]);
    expect(inProcess('[oom.offerBefore(900), oom.oomScore()]')).toEqual([null, 1000]);
  },
);
