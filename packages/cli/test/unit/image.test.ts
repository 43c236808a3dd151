import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PantalaError } from '@pantala/base';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { misnamed } from '../../src/commands/image/misnamed.ts';
import { command } from './command.ts';

describe('image', () => {
  let folder: string;
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'pantala-image-'));
    mkdirSync(join(folder, 'source', 'folder'), { recursive: true });
    writeFileSync(join(folder, 'source', 'folder', 'file'), 'content'.repeat(1000));
    writeFileSync(join(folder, 'source', 'empty'), '');
    const built = await command(
      'image',
      'build',
      join(folder, 'source'),
      '-B',
      boot(),
      '-D',
      blobs(),
      '-J',
      join(folder, 'report'),
    );
    expect(built.stderr).toBe('');
    expect(built.status).toBe(0);
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  const boot = (): string => join(folder, 'boot');
  const blobs = (): string => join(folder, 'blobs');

  test("the report has nydus-image's keys", () => {
    const report = JSON.parse(readFileSync(join(folder, 'report'), 'utf8')) as object;
    expect(report).toMatchObject({
      bootstrap: boot(),
      blobs: readdirSync(blobs()),
      fs_version: '6',
      compressor: 'zstd',
    });
  });

  test('what was built is checked, listed and counted', async () => {
    const [checked, listed, counted] = await Promise.all([
      command('image', 'check', '-B', boot(), '-D', blobs(), '--against', join(folder, 'source')),
      command('image', 'inspect', boot(), '--path', '/folder', '--json'),
      command('image', 'stat', boot(), '--json'),
    ]);
    expect(checked).toMatchObject({ status: 0, stdout: `${boot()}: 1 blob, 1 chunk, 6.8 KiB, all right\n` });
    const lines = listed.stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { path: string });
    expect(lines.map(({ path }) => path)).toEqual(['folder', 'folder/file']);
    expect(JSON.parse(counted.stdout)).toMatchObject({ entries: 4, fileBytes: 7000, unique: { chunks: 1 } });
  });

  test('a changed source is found out, with a status of its own', async () => {
    mkdirSync(join(folder, 'other'));
    writeFileSync(join(folder, 'other', 'new'), '');
    const { status, stdout } = await command(
      'image',
      'check',
      boot(),
      '-D',
      blobs(),
      '--against',
      join(folder, 'other'),
    );
    expect(status).toBe(76);
    expect(stdout).toMatch(/^\/folder\/file: a regular that is not in the source$/m);
    expect(stdout).toMatch(/^\/new: a regular is missing in the image$/m);
  });

  test.each([
    ['check', [], 64, /name an image/],
    ['check', ['nothing/at/all/boot', '-D', '.'], 66, /nothing/],
    ['build', ['.', '-D', 'x'], 64, /where the bootstrap goes/],
    ['build', ['.', '-D', 'x', '-B', 'b', '--chunk-size', '5000'], 64, /power of two/],
    ['build', ['.', '-D', 'x', '-B', 'b', '--compressor', 'gzip'], 64, /--compressor is one of zstd/],
    ['export', ['boot', '-O', 'x'], 64, /--block/],
    ['merge', ['a', 'b', '-B', 'm', '--blob-sizes', '1'], 64, /1 entries for 2 bootstraps/],
    ['unpack', ['boot'], 64, /--output/],
  ] as const)('%s %j ends with %i', async (name, args, status, said) => {
    const given = args.map((arg) => (arg === 'x' ? join(folder, 'never') : arg));
    const result = await command('image', name, ...given);
    expect(result.status).toBe(status);
    expect(result.stderr).toMatch(said);
    expect(readdirSync(folder)).not.toContain('never');
  });

  test('what is no image and what cannot be written is named, with what is wrong', async () => {
    const file = join(folder, 'source', 'folder', 'file');
    const cases = [
      [['unpack', boot(), '-D', blobs(), '-O', '/proc/nothing/tree'], 66, '/proc/nothing: no such file or directory'],
      [['unpack', boot(), '-D', blobs(), '-O', join(boot(), 'tree')], 73, `${join(boot(), 'tree')} cannot be a folder`],
      [['check', boot(), '-D', blobs(), '--threads', '0'], 64, '0 threads: give 1 to 8'],
      [['build', join(folder, 'missing'), '-B', boot(), '-D', blobs()], 66, `missing: no such file or directory`],
      [['check', file], 64, `${file} is neither a RAFS v6 bootstrap`],
      [['check', boot(), '-D', blobs(), '--against', file], 64, `${file}: the tar is malformed`],
    ] as const;
    for (const [args, status, said] of cases) {
      const result = await command('image', ...args);
      expect([result.status, result.stderr]).toEqual([status, expect.stringContaining(said)]);
    }
  });

  test('a name that is no file is said to have been looked for in a registry', async () => {
    const unknown = new PantalaError('unavailable', 'registry-1.docker.io does not answer');
    expect((await misnamed('rootfs', unknown)).message).toContain('"rootfs" was looked for in a registry');
    // Whoever names a host, or a file that is there, knows what is meant.
    for (const name of ['example.org/a:1', boot(), 'docker://rootfs'])
      expect(await misnamed(name, unknown)).toBe(unknown);
  });
});
