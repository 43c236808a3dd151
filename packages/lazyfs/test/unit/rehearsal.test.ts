import { expect, test } from 'vitest';
import { rehearseReading } from '../../src/mounting/rehearsal.ts';

test('reading is rehearsed to its end, with a rest before each read', async () => {
  let rests = 0;
  await rehearseReading(async () => {
    rests++;
  }, new AbortController().signal);
  expect(rests).toBeGreaterThan(1);
});

test('a rehearsal ends with its signal', async () => {
  const ending = new AbortController();
  ending.abort(new Error('the worker ends'));
  await expect(rehearseReading(async () => {}, ending.signal)).rejects.toThrow('the worker ends');
});
