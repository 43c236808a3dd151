import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Logger } from '@pantala/base';
import { expect, test } from 'vitest';
import { Rehearsal } from '../../src/rehearsal.ts';

test('a rehearsal goes through without an error and leaves nothing behind, to its end, stopped, or when it becomes earnest', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'rehearsal-'));
  try {
    const lines: string[] = [];
    const note = (message: string) => void lines.push(message);
    const logger: Logger = { debug: note, info: note, warn: note, error: note, child: () => logger };
    const whole = new Rehearsal(join(folder, 'whole'), () => false, logger);
    await whole.ended;
    await whole[Symbol.asyncDispose]();
    await new Rehearsal(join(folder, 'stopped'), () => false, logger)[Symbol.asyncDispose]();
    await new Rehearsal(join(folder, 'earnest'), () => true, logger).ended;
    expect(lines).toEqual(['rehearsed', 'rehearsed', 'rehearsed']);
    expect(existsSync(join(folder, 'whole'))).toBe(false);
    expect(existsSync(join(folder, 'stopped'))).toBe(false);
    expect(existsSync(join(folder, 'earnest'))).toBe(false);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
