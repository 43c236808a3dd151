import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  ACCESS_EVENT_LENGTH,
  accessEvents,
  answerAccess,
  createAccessGroup,
  LinuxError,
  markFile,
  pollReadable,
  readInto,
  unmarkFile,
} from '../../src/index.ts';

function groupOrReason(): number | string {
  try {
    return createAccessGroup();
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

const probe = groupOrReason();
if (typeof probe === 'number') closeSync(probe);

describe.skipIf(typeof probe === 'string')(`events before reads ${typeof probe === 'string' ? probe : ''}`, () => {
  let scratch: string;
  let path: string;
  let group: number;

  beforeEach(() => {
    scratch = mkdtempSync(join(tmpdir(), 'pantala-fanotify-'));
    path = join(scratch, 'cache');
    writeFileSync(path, '');
    truncateSync(path, 1024 * 1024);
    group = createAccessGroup();
  });

  afterEach(() => {
    closeSync(group);
    rmSync(scratch, { recursive: true, force: true });
  });

  /** Another process that reads eight bytes at an offset; what it printed, and its status. */
  function reader(offset: number): { readonly pid: number; readonly done: Promise<readonly [string, number]> } {
    const child = spawn('dd', [`if=${path}`, 'bs=8', 'count=1', `skip=${offset / 8}`, 'status=none']);
    let printed = '';
    child.stdout.on('data', (bytes) => {
      printed += bytes;
    });
    return { pid: child.pid as number, done: once(child, 'close').then(([status]) => [printed, status as number]) };
  }

  function nextEvents() {
    const buffer = new Uint8Array(ACCESS_EVENT_LENGTH * 16);
    pollReadable([group], 10_000);
    const length = readInto(group, buffer);
    return [...accessEvents(buffer.subarray(0, Math.max(0, length)))];
  }

  test('a reader waits, and gets what was written through the descriptor of its event', async () => {
    markFile(group, path);
    const { pid, done } = reader(4096);
    const [event] = nextEvents();
    if (event === undefined) throw new Error('no event');
    expect(event).toMatchObject({ pid, offset: 4096, overflow: false });
    expect(event.count).toBeGreaterThanOrEqual(8);
    writeSync(event.fd, Buffer.from('PANTALA!'), 0, 8, 4096);
    expect(answerAccess(group, event.fd, 0)).toBe(true);
    expect(answerAccess(group, event.fd, 0)).toBe(false);
    closeSync(event.fd);
    expect(await done).toEqual(['PANTALA!', 0]);
  });

  test('a denied reader gets an error, and asks again when it reads again', async () => {
    markFile(group, path);
    for (let attempt = 0; attempt < 2; attempt++) {
      const { done } = reader(0);
      const [event] = nextEvents();
      if (event === undefined) throw new Error('no event');
      answerAccess(group, event.fd, 5);
      closeSync(event.fd);
      expect(await done).toEqual(['', 1]);
    }
  });

  test('after the mark is gone nobody is asked', async () => {
    markFile(group, path);
    expect(unmarkFile(group, path)).toBe(true);
    expect(unmarkFile(group, path)).toBe(false);
    expect((await reader(0).done)[1]).toBe(0);
    expect(pollReadable([group], 0)).toEqual([0]);
  });

  test('a file system that takes no mark says so', () => {
    const elsewhere = mkdtempSync('/dev/shm/pantala-');
    try {
      writeFileSync(join(elsewhere, 'cache'), 'x');
      expect(() => markFile(group, join(elsewhere, 'cache'))).toThrow(LinuxError);
      expect(() => markFile(group, join(elsewhere, 'cache'))).toThrow(/FAN_PRE_ACCESS, \S+\) failed: EOPNOTSUPP/);
    } finally {
      rmSync(elsewhere, { recursive: true });
    }
  });
});

test('whatever stands in a buffer, reading events from it ends', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
      // A plausible beginning takes the parser further than bare noise does.
      if (bytes.length > 8) bytes.set([Math.max(24, (bytes[0] ?? 0) % 64), 0, 0, 0, 3, 0, 24, 0]);
      for (const event of accessEvents(bytes)) expect(event.at).toBeLessThan(bytes.length);
    }),
  );
});
