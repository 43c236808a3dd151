import { expect, test } from 'vitest';
import { ReadAhead } from '../../src/cache/read-ahead.ts';

const KIB = 1024;
const LIMIT = 1024 * KIB;

/** After requests that say the same of the source again and again. */
function learned(latency: number, bytesPerMillisecond: number): ReadAhead {
  const ahead = new ReadAhead();
  for (let request = 0; request < 20; request++) ahead.ended(latency, 100 * bytesPerMillisecond, 100);
  return ahead;
}

test('a source that is near is asked for little more than is read, one that is far for more', () => {
  // 200 Mbit/s: what another request costs is some milliseconds, or more than forty.
  expect(learned(1, 25_000).lengthAt(0, LIMIT)).toBeLessThan(160 * KIB);
  expect(learned(40, 25_000).lengthAt(0, LIMIT)).toBe(LIMIT);
});

test('a slow link carries what is read first, a fast one whatever lies near', () => {
  expect(learned(5, 1_000).lengthAt(0, LIMIT)).toBe(64 * KIB);
  expect(learned(1, 1_000_000).lengthAt(0, LIMIT)).toBe(LIMIT);
});

test('who reads on where the last request ended is answered in ever longer ones, anybody else is not', () => {
  const ahead = learned(1, 25_000);
  const lengths: number[] = [];
  for (let group = 0; group < 50; group += 10) {
    lengths.push(ahead.lengthAt(group, LIMIT));
    ahead.begun(group, group + 10, lengths.at(-1) as number);
  }
  for (const [at, length] of lengths.entries()) {
    if (at > 0) expect(length).toBe(Math.min(LIMIT, 2 * (lengths[at - 1] as number)));
  }
  expect(lengths.at(-1)).toBe(LIMIT);
  expect(ahead.lengthAt(7, LIMIT)).toBe(lengths[0]);
});

test('nothing exceeds the limit, and places where somebody may read on are forgotten', () => {
  const ahead = new ReadAhead();
  expect(ahead.lengthAt(0, 0)).toBe(0);
  ahead.begun(0, 1, LIMIT);
  expect(ahead.lengthAt(1, LIMIT)).toBe(LIMIT);
  for (let group = 100; group < 1000; group += 2) ahead.begun(group, group + 1, LIMIT);
  expect(ahead.lengthAt(1, LIMIT)).toBe(256 * KIB);
});
