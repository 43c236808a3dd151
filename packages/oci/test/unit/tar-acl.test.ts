import { execFileSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { getXattr, setXattr } from '@pantala/linux';
import { Scratch } from '@pantala/testkit';
import { describe, expect, test } from 'vitest';
import { END, header, paxHeader, readBytes } from '../support/tar-blocks.ts';

const ACCESS = 'system.posix_acl_access';
const DEFAULT = 'system.posix_acl_default';
const NOBODY = 0xffff_ffff;

/** An attribute of Linux: version 2, then tag, permissions and id of each entry. */
function attribute(...entries: readonly (readonly [tag: number, permissions: number, id: number])[]): Buffer {
  const bytes = Buffer.alloc(4 + 8 * entries.length);
  bytes.writeUInt32LE(2, 0);
  for (const [index, [tag, permissions, id]] of entries.entries()) {
    bytes.writeUInt16LE(tag, 4 + 8 * index);
    bytes.writeUInt16LE(permissions, 6 + 8 * index);
    bytes.writeUInt32LE(id, 8 + 8 * index);
  }
  return bytes;
}

const FULL = attribute(
  [1, 6, NOBODY],
  [2, 4, 0],
  [2, 7, 70_001],
  [4, 5, NOBODY],
  [8, 2, 70_002],
  [16, 4, NOBODY],
  [32, 1, NOBODY],
);

async function xattrsOf(...records: [string, string][]) {
  const [entry] = await readBytes(paxHeader(records), header({ name: 'd/', type: '5' }), END);
  return entry?.xattrs;
}

describe('access control lists', () => {
  test.each([
    ['by GNU tar', 'user::rw-\nuser:root:r--\nuser:70001:rwx\ngroup::r-x\ngroup:70002:-w-\nmask::r--\nother::--x\n\n'],
    [
      'by bsdtar and star',
      'user::rw-,group::r-x,other::--x,user:lisa:rwx:70001,user:root:r--:0,group:x:-w-:70002,mask::r--',
    ],
    [
      'short, with comments',
      'u::rw-,u:70001:rwx\t#effective:r--,u:0:r--,g::r-x\t#effective:r--,g:70002:-w-,m:r--,o:--x',
    ],
  ])('%s', async (_, text) => {
    const xattrs = await xattrsOf(['SCHILY.acl.access', text], ['SCHILY.acl.default', text]);
    expect(xattrs?.get(ACCESS)).toEqual(FULL);
    expect(xattrs?.get(DEFAULT)).toEqual(FULL);
  });

  test('that say no more than the mode are none, but for what is made in a directory', async () => {
    const text = 'user::rwx\ngroup::r-x\nother::---\n';
    const xattrs = await xattrsOf(['SCHILY.acl.access', text], ['SCHILY.acl.default', text]);
    expect([...(xattrs ?? [])]).toEqual([[DEFAULT, attribute([1, 7, NOBODY], [4, 5, NOBODY], [32, 0, NOBODY])]]);
  });

  test('as an attribute win over those as text', async () => {
    const bytes = FULL.toString('latin1');
    const text = 'user::r--,user:5:r--,group::r--,mask::r--,other::r--';
    for (const records of [
      [`SCHILY.acl.access=${text}`, `SCHILY.xattr.${ACCESS}=${bytes}`],
      [`SCHILY.xattr.${ACCESS}=${bytes}`, `SCHILY.acl.access=${text}`],
    ]) {
      const pairs = records.map((record): [string, string] => {
        const cut = record.indexOf('=');
        return [record.slice(0, cut), record.slice(cut + 1)];
      });
      expect((await xattrsOf(...pairs))?.get(ACCESS)).toEqual(FULL);
    }
  });

  test.each([
    [
      'a name without a number',
      'user::rw-,user:lisa:r--,group::r--,mask::r--,other::---',
      /names "lisa" without a num/,
    ],
    ['a number that is none', 'user::rw-,user:lisa:r--:-1,group::r--,mask::r--,other::---', /names "lisa" without a n/],
    ['the number of nobody', 'user::rw-,user:4294967295:r--,group::r--,mask::r--,other::---', /without a number/],
    ['an unknown entry', 'user::rw-,everyone@:r--,group::r--,other::---', /the entry "everyone@:r--", which/],
    ['odd permissions', 'user::rwX,group::r--,other::---', /the entry "user::rwX", which/],
    ['a mask with a name', 'user::rw-,group::r--,mask:5:r--,other::---', /the entry "mask:5:r--", which/],
    ['fields too many', 'user::rw-,user:a:rwx:1:2,group::r--,mask::r--,other::---', /which means nothing/],
    ['no mask', 'user::rw-,user:1:rwx,group::r--,other::---', /lacks an entry/],
    ['nothing for others', 'user::rw-,group::r--', /lacks an entry/],
    ['somebody twice', 'user::rw-,user:1:rwx,user:01:r--,group::r--,mask::r--,other::---', /has one twice/],
  ])('with %s are refused', async (_, text, message) => {
    await expect(xattrsOf(['SCHILY.acl.access', text])).rejects.toMatchObject({
      code: 'invalid-argument',
      message: expect.stringMatching(message),
    });
  });

  test('of a file system, through GNU tar', async (context) => {
    await using scratch = Scratch.create('acl');
    const [file, directory, tar] = [scratch.join('f'), scratch.join('d'), scratch.join('tar')];
    writeFileSync(file, '');
    mkdirSync(directory);
    try {
      setXattr(Buffer.from(file), Buffer.from(ACCESS), FULL);
      setXattr(Buffer.from(directory), Buffer.from(DEFAULT), FULL);
    } catch {
      context.skip('the temporary folder has no access control lists');
    }
    execFileSync('tar', ['-C', scratch.path, '--acls', '--format=pax', '-cf', tar, 'f', 'd']);
    const [first, second] = await readBytes(readFileSync(tar));
    expect(first?.xattrs.get(ACCESS)).toEqual(getXattr(Buffer.from(file), Buffer.from(ACCESS)));
    expect(second?.xattrs.get(DEFAULT)).toEqual(getXattr(Buffer.from(directory), Buffer.from(DEFAULT)));
    expect(second?.xattrs.has(ACCESS)).toBe(false);
  });
});
