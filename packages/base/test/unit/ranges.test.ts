import {
  formatContentRange,
  intersect,
  MAX_RANGES_PER_REQUEST,
  parseContentRange,
  parseRangeHeader,
  resolveRange,
} from '@pantala/base';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

describe('Range headers', () => {
  test('each form resolves to the bytes that RFC 9110 means', () => {
    const resolve = (value: string) => parseRangeHeader(value)?.map((spec) => resolveRange(spec, 10));
    expect(resolve('bytes=0-4')).toEqual([{ start: 0, end: 5 }]);
    expect(resolve('bytes=4-')).toEqual([{ start: 4, end: 10 }]);
    expect(resolve('bytes=-3')).toEqual([{ start: 7, end: 10 }]);
    expect(resolve('bytes=-30')).toEqual([{ start: 0, end: 10 }]);
    expect(resolve('Bytes = 0-0 , 9-99')).toEqual([
      { start: 0, end: 1 },
      { start: 9, end: 10 },
    ]);
    expect(resolve('bytes=10-')).toEqual([undefined]);
    expect(resolve('bytes=-0')).toEqual([undefined]);
    expect(parseRangeHeader('bytes=-5')?.map((spec) => resolveRange(spec, 0))).toEqual([undefined]);
  });

  test('what is malformed is ignored, and what costs too much is refused', () => {
    for (const value of [
      '',
      'bytes=',
      'bytes=-',
      'bytes=5-4',
      'bytes=a-b',
      'items=0-1',
      'bytes=0-1;2-3',
      'bytes=1',
      'bytes=0-1,',
    ]) {
      expect(parseRangeHeader(value)).toBeUndefined();
    }
    const many = `bytes=${'0-0,'.repeat(MAX_RANGES_PER_REQUEST)}0-0`;
    expect(() => parseRangeHeader(many)).toThrowError(expect.objectContaining({ code: 'out-of-range' }));
  });

  test('no input makes the parser throw anything else or return a range outside the content', () => {
    fc.assert(
      fc.property(fc.stringMatching(/^bytes=[0-9,\- ]{0,40}$/), fc.nat(1000), (value, length) => {
        for (const spec of parseRangeHeader(value) ?? []) {
          const range = resolveRange(spec, length);
          if (range === undefined) continue;
          expect(range.start).toBeGreaterThanOrEqual(0);
          expect(range.end).toBeGreaterThan(range.start);
          expect(range.end).toBeLessThanOrEqual(length);
        }
      }),
      { numRuns: 1000 },
    );
  });
});

describe('Content-Range', () => {
  test('is read as it is written', () => {
    expect(parseContentRange(formatContentRange({ start: 3, end: 9 }, 10))).toEqual({
      range: { start: 3, end: 9 },
      contentLength: 10,
    });
    expect(parseContentRange('bytes 0-4/*')).toEqual({ range: { start: 0, end: 5 }, contentLength: undefined });
    for (const value of ['bytes */10', 'bytes 4-3/10', 'bytes 0-10/10', 'bytes 0-1', 'lines 0-1/2']) {
      expect(parseContentRange(value)).toBeUndefined();
    }
  });
});

test('an intersection holds exactly the common bytes', () => {
  const range = fc.tuple(fc.nat(20), fc.nat(20)).map(([start, length]) => ({ start, end: start + length }));
  fc.assert(
    fc.property(range, range, (a, b) => {
      const both = intersect(a, b);
      for (let byte = 0; byte < 45; byte++) {
        const inside = byte >= a.start && byte < a.end && byte >= b.start && byte < b.end;
        expect(both !== undefined && byte >= both.start && byte < both.end).toBe(inside);
      }
    }),
  );
});
