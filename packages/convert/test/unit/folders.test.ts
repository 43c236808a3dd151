import { mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { Scratch } from '@pantala/testkit';
import { expect, test } from 'vitest';
import { makeFolder } from '../../src/index.ts';

test('folders are made with those above them, together and again', async () => {
  await using scratch = Scratch.create('folders');
  await Promise.all(['a/b/c', 'a/b/d', 'a/b/c'].map((path) => makeFolder(scratch.join(path))));
  for (const path of ['a/b/c', 'a/b/d']) expect(statSync(scratch.join(path)).isDirectory()).toBe(true);
  await makeFolder(scratch.join('a/b'));
  mkdirSync(scratch.join('real'));
  symlinkSync('real', scratch.join('link'));
  await makeFolder(scratch.join('link/below'));
  expect(statSync(scratch.join('real/below')).isDirectory()).toBe(true);
});

test('where there can be none is said at once, with the name', async () => {
  await using scratch = Scratch.create('folders');
  writeFileSync(scratch.join('file'), '');
  for (const path of [scratch.join('file'), scratch.join('file/below'), scratch.join('file/far/below')])
    await expect(makeFolder(path)).rejects.toMatchObject({
      code: 'already-exists',
      message: expect.stringContaining(`${scratch.join('file')}`),
    });
  await expect(makeFolder('/proc/nothing/below')).rejects.toMatchObject({ code: 'not-found' });
});
