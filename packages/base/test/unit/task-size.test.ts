import { taskSizeLevel } from '@pantala/base';
import { expect, test } from 'vitest';

const MIB = 1024 ** 2;

test.each([
  [0, 0],
  [1, 1],
  [MIB, 1],
  [MIB + 1, 2],
  [4 * MIB, 2],
  [1024 * MIB, 10],
  [1024 * MIB + 1, 11],
  [1024 ** 4, 19],
  [1024 ** 4 + 1, 20],
])('%i bytes are of level %i', (length, level) => {
  expect(taskSizeLevel(length)).toBe(level);
});
