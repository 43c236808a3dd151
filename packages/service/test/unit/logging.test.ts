import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PantalaError } from '@pantala/base';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createLogger, formatLocalTime, withoutSecrets } from '../../src/index.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'pantala-log-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function linesOf(file: string): Record<string, unknown>[] {
  return readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

describe('the logger', () => {
  it("writes upstream's keys in upstream's order", () => {
    const file = join(folder, 'daemon', 'core.log');
    using logger = createLogger({ verbose: false, file, console: false });
    const task = logger.child({ peer: '10.0.0.1-1-u' });
    task.info('peer task done, cost: 12ms', { task: 'abc', component: 'PeerTask', trace: 't' });
    logger.debug('not to be seen');
    const [line, ...rest] = linesOf(file);
    expect(rest).toEqual([]);
    expect(Object.keys(line ?? {})).toEqual(['level', 'ts', 'caller', 'msg', 'peer', 'task', 'component', 'trace']);
    expect(line).toMatchObject({ level: 'info', msg: 'peer task done, cost: 12ms', peer: '10.0.0.1-1-u' });
    expect(line?.ts).toMatch(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}$/);
    expect(line?.caller).toMatch(/^service\/logging\.test\.ts:\d+$/);
  });

  it('adds debug lines when verbose', () => {
    const file = join(folder, 'core.log');
    using logger = createLogger({ verbose: true, file, console: false });
    logger.debug('seen');
    expect(linesOf(file)).toMatchObject([{ level: 'debug', msg: 'seen' }]);
  });

  it('writes no secret, wherever it stands', () => {
    const file = join(folder, 'core.log');
    using logger = createLogger({ verbose: true, file, console: false });
    logger.warn('asked https://u:hunter2@host/x?X-Amz-Signature=hunter2&a=1', {
      headers: { authorization: 'Bearer hunter2hunter2', accept: '*/*', 'set-cookie': ['hunter2'] },
      url: 'https://bucket/blob?Signature=hunter2&Expires=5',
      error: new PantalaError('origin', 'Bearer hunter2hunter2 was refused', { cause: new Error('token=hunter2') }),
      password: 'hunter2',
    });
    expect(readFileSync(file, 'utf8')).not.toContain('hunter2');
    expect(linesOf(file)[0]).toMatchObject({
      url: 'https://bucket/blob?Signature=[hidden]&Expires=5',
      headers: { accept: '*/*' },
      error: { code: 'origin' },
    });
    expect(withoutSecrets('a plain text')).toBe('a plain text');
  });

  it('rotates by size and keeps so many files', () => {
    const file = join(folder, 'core.log');
    using logger = createLogger({ verbose: false, file, console: false, maxBytes: 1000, maxFiles: 2 });
    for (let number = 0; number < 60; number++) logger.info(`line ${number}`);
    expect(readdirSync(folder).toSorted()).toEqual(['core.log', 'core.log.1', 'core.log.2']);
    const all = ['core.log.2', 'core.log.1', 'core.log'].flatMap((name) => linesOf(join(folder, name)));
    const numbers = all.map((line) => Number(String(line.msg).slice(5)));
    expect(numbers.at(-1)).toBe(59);
    expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, index) => 60 - numbers.length + index));
  });

  it('formats local time', () => {
    expect(formatLocalTime(new Date(2024, 2, 5, 3, 4, 5, 6))).toBe('2024-03-05 03:04:05.006');
  });
});
