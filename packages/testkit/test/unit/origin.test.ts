import { afterAll, beforeAll, expect, test } from 'vitest';
import { ask, Content, loopbackPlace, type Oddities, Origin } from '../../src/index.ts';

const LENGTH = 3_000_001;
const content = new Content(LENGTH, 'origin');
let origin: Origin;
beforeAll(async () => {
  origin = await Origin.start({ host: loopbackPlace().address });
});
afterAll(async () => origin[Symbol.asyncDispose]());

test('content is the same from any offset, and another with another salt', () => {
  const whole = content.slice(0, LENGTH);
  for (const [start, end] of [
    [0, 1],
    [15, 17],
    [1_048_575, 2_097_153],
    [LENGTH - 1, LENGTH],
  ] as const) {
    expect(content.slice(start, end).equals(whole.subarray(start, end))).toBe(true);
  }
  expect(new Content(LENGTH, 'another').sha256).not.toBe(content.sha256);
});

test.each<{ name: string; oddities: Oddities; whole: object; part: object }>([
  { name: 'plain', oddities: {}, whole: { status: 200, bytes: LENGTH }, part: { status: 206, bytes: 1000 } },
  { name: 'no ranges', oddities: { noRanges: true }, whole: { status: 200 }, part: { status: 200, bytes: LENGTH } },
  { name: 'chunked', oddities: { chunked: true }, whole: { status: 200, bytes: LENGTH }, part: { status: 200 } },
  { name: 'HTTP/1.0', oddities: { http10: true }, whole: { status: 200, bytes: LENGTH }, part: { status: 200 } },
  { name: 'redirect', oddities: { redirectFor: 1 }, whole: { status: 307, bytes: 0 }, part: { status: 307 } },
  { name: '416', oddities: { unsatisfiable: true }, whole: { status: 200 }, part: { status: 416, bytes: 0 } },
  { name: 'too long', oddities: { lengthError: 9 }, whole: { status: 200, whole: false }, part: { status: 206 } },
  { name: 'broken off', oddities: { truncateAfter: 500 }, whole: { whole: false, bytes: 500 }, part: { whole: false } },
  { name: 'bearer token', oddities: { tokenRequests: 1 }, whole: { status: 401 }, part: { status: 401 } },
  { name: '503 once', oddities: { status: 503, times: 1 }, whole: { status: 503 }, part: { status: 206, bytes: 1000 } },
])('an origin with $name', async ({ name, oddities, whole, part }) => {
  const path = `/${name.replaceAll(/\W/g, '')}`;
  const url = origin.serve(path, content, oddities);
  const all = await ask(url);
  expect(all).toMatchObject(whole);
  if (all.bytes === LENGTH) expect(all.sha256).toBe(content.sha256);
  const some = await ask(url, { headers: { range: 'bytes=17-1016' } });
  expect(some).toMatchObject(part);
  expect(origin.count(path)).toMatchObject({ requests: 2, ranges: ['', 'bytes=17-1016'] });
});
