import fc from 'fast-check';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { ReadPacing } from '../../src/read-pacing.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
});

afterEach(() => {
  vi.useRealTimers();
});

/** A sender of `rate` bytes a millisecond, whose packets wait until the socket is read; one step is 0.1 ms. */
function readAll(rate: number, total: number): { reads: number; milliseconds: number } {
  const start = performance.now();
  let reading = true;
  let left = total;
  let reads = 0;
  let owed = 0;
  let waiting = 0;
  using pacing = new ReadPacing(() => {
    reading = true;
  });
  while (left > 0) {
    vi.advanceTimersByTime(0.1);
    owed += rate / 10;
    const packets = Math.floor(owed / 1448) * 1448;
    owed -= packets;
    waiting = Math.min(left, waiting + packets);
    if (!reading || waiting === 0) continue;
    const length = waiting;
    waiting = 0;
    left -= length;
    reads++;
    reading = !pacing.rests(length, left);
  }
  return { reads, milliseconds: performance.now() - start };
}

test('a slow sender is read in large parts, and what comes last is not waited for', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1000, max: 30_000 }), fc.integer({ min: 100_000, max: 4_000_000 }), (rate, total) => {
      const { reads, milliseconds } = readAll(rate, total);
      const perRead = Math.min(32 * 1024, rate * 20);
      expect(reads).toBeLessThan(30 + (2.5 * total) / perRead);
      expect(milliseconds).toBeLessThan(total / rate + 25);
    }),
    { numRuns: 40 },
  );
});

test('large reads, and the last one, never rest', () => {
  using pacing = new ReadPacing(() => undefined);
  for (let i = 0; i < 100; i++) {
    vi.advanceTimersByTime(0.2);
    expect(pacing.rests(64 * 1024, 1024 * 1024)).toBe(false);
  }
  vi.advanceTimersByTime(5);
  expect(pacing.rests(1000, 0)).toBe(false);
  expect(pacing.resting).toBe(false);
});

test('a connection that ends takes its rest with it', () => {
  let resumed = 0;
  const pacing = new ReadPacing(() => resumed++);
  for (let i = 0; i < 10 && !pacing.resting; i++) {
    vi.advanceTimersByTime(1);
    pacing.rests(1448, 1024 * 1024);
  }
  expect(pacing.resting).toBe(true);
  pacing[Symbol.dispose]();
  expect(pacing.resting).toBe(false);
  vi.advanceTimersByTime(100);
  expect(resumed).toBe(0);
});
