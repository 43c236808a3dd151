import { existsSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { Program, Scratch } from '@pantala/testkit';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { WorkFolder } from '../../src/images/work-folder.ts';

const MODULE = new URL('../../src/images/work-folder.ts', import.meta.url).href;

let scratch: Scratch;

beforeAll(() => {
  scratch = Scratch.create('work');
});

afterAll(() => scratch[Symbol.asyncDispose]());

/** A process that has a work folder, and its path. */
async function owner(parent: string): Promise<Program> {
  const script = `const { WorkFolder } = await import('${MODULE}');
    const folder = await WorkFolder.create('${parent}');
    (await import('node:fs')).writeFileSync(folder.join('blob'), 'x');
    console.log('at ' + folder.path);
    setInterval(() => folder, 1000);`;
  return Program.start(process.execPath, ['--input-type=module', '-e', script], { ready: /^at .*\n/ });
}

const pathOf = ({ stdout }: Program) => /^at (.*)\n/.exec(stdout)?.[1] as string;

test('a folder goes with its owner, or when the next one comes after it was killed', async () => {
  const parent = scratch.join('killed');
  mkdirSync(parent);
  await using first = await owner(parent);
  await using second = await owner(parent);
  {
    await using third = await WorkFolder.create(parent);
    expect(readdirSync(parent)).toHaveLength(3);
    expect(third.holds('blob')).toBe(false);
  }
  expect(readdirSync(parent)).toHaveLength(2);
  await first.kill();
  expect(existsSync(pathOf(first))).toBe(true);
  await using fourth = await WorkFolder.create(parent);
  expect(
    readdirSync(parent)
      .map((name) => `${parent}/${name}`)
      .toSorted(),
  ).toEqual([pathOf(second), fourth.path].toSorted());
});

test('many at once keep theirs; what is no folder stays', async () => {
  const parent = scratch.join('many');
  mkdirSync(parent);
  writeFileSync(`${parent}/pantala-convert-file`, '');
  mkdirSync(scratch.join('elsewhere'));
  symlinkSync(scratch.join('elsewhere'), `${parent}/pantala-convert-link`);
  mkdirSync(`${parent}/other`);
  const folders = await Promise.all(Array.from({ length: 20 }, () => WorkFolder.create(parent)));
  for (const folder of folders) writeFileSync(folder.join('x'), '');
  expect(folders.every((folder) => folder.holds('x'))).toBe(true);
  await Promise.all(folders.map((folder) => folder[Symbol.asyncDispose]()));
  expect(readdirSync(parent).toSorted()).toEqual(['other', 'pantala-convert-file', 'pantala-convert-link']);
  expect(existsSync(scratch.join('elsewhere'))).toBe(true);
  await expect(WorkFolder.create(scratch.join('nowhere'))).rejects.toMatchObject({ code: 'not-found' });
});
