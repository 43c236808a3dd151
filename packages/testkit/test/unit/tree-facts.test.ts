import { linkSync, lutimesSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { bytesOfPython, compareTrees, readTree, withinItself } from '../../src/index.ts';
import { Scratch } from '../../src/scratch.ts';

function makeTree(top: string, content = 'content'): void {
  mkdirSync(`${top}/folder`, { recursive: true });
  writeFileSync(`${top}/folder/file`, content, { mode: 0o640 });
  linkSync(`${top}/folder/file`, `${top}/again`);
  symlinkSync('folder/fi\nle', `${top}/symlink`);
  writeFileSync(Buffer.from(`${top}/\xff`, 'latin1'), '');
  for (const name of ['folder/file', 'folder', 'symlink', '.']) lutimesSync(`${top}/${name}`, 1600000000, 1600000000);
  // Node takes a negative number for "now".
  lutimesSync(Buffer.from(`${top}/\xff`, 'latin1'), new Date(-1000), new Date(-1000));
}

test('a directory is read as facts', async () => {
  await using scratch = Scratch.create('tree-facts');
  makeTree(scratch.join('tree'));
  const tree = await readTree(scratch.join('tree'));
  expect([...tree.keys()].sort()).toEqual(['.', 'again', 'folder', 'folder/file', 'symlink', '\xff']);
  expect(tree.get('folder/file')).toMatchObject({
    mode: '100640',
    mtime: '1600000000000000000',
    nlink: 2,
    size: 7,
    sha: 'ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73',
    hl: 'again',
  });
  expect(tree.get('symlink')?.target).toBe(Buffer.from('folder/fi\nle').toString('hex'));
  expect(tree.get('\xff')?.mtime).toBe('-1000000000');
  expect(await readTree(scratch.join('tree'), ['folder'])).toHaveProperty('size', 4);
});

test('names outside a tree can be left out of account', async () => {
  await using scratch = Scratch.create('tree-facts');
  makeTree(scratch.join('tree'));
  const alone = await readTree(scratch.join('tree'));
  expect(withinItself(alone)).toEqual(alone);
  linkSync(scratch.join('tree/again'), scratch.join('outside'));
  linkSync(Buffer.from(scratch.join('tree/\xff'), 'latin1'), scratch.join('outside too'));
  expect(await readTree(scratch.join('tree'))).not.toEqual(alone);
  expect(withinItself(await readTree(scratch.join('tree')))).toEqual(alone);
});

test('every difference of two trees is named', async () => {
  await using scratch = Scratch.create('tree-facts');
  makeTree(scratch.join('one'));
  makeTree(scratch.join('two'), 'changed');
  const [one, two] = [await readTree(scratch.join('one')), await readTree(scratch.join('two'))];
  expect(compareTrees(one, new Map(one))).toEqual([]);
  const differences = compareTrees(one, two, { without: ['mtime'] });
  expect(differences).toHaveLength(2);
  expect(differences.every((line) => /^(again|folder\/file): sha /.test(line))).toBe(true);
  const moved = new Map(one);
  const file = moved.get('symlink');
  moved.delete('symlink');
  if (file !== undefined) moved.set('elsewhere', { ...file, xattr: { 'user.a': '00' } });
  expect(compareTrees(one, moved)).toEqual(['symlink: missing', 'elsewhere: not expected']);
  expect(
    compareTrees(moved, new Map([...moved, ['elsewhere', { ...file, xattr: { 'user.a': '01' } } as never]])),
  ).toEqual(['elsewhere: xattr user.a 00 expected, 01 found']);
});

test('any bytes in a text of Python', () => {
  expect(bytesOfPython('a\udcff\udc80ü€')).toBe('a\xff\x80\xc3\xbc\xe2\x82\xac');
});
