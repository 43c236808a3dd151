import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');
const bin = join(root, '../../node_modules/.bin');

async function files(directory: string): Promise<Map<string, string>> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const contents = new Map<string, string>();
  for (const entry of entries.filter((found) => found.isFile())) {
    const path = join(entry.parentPath, entry.name);
    contents.set(path.slice(directory.length), await readFile(path, 'utf8'));
  }
  return contents;
}

test('the generated code is what the .proto files say', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'pantala-gen-'));
  try {
    await promisify(execFile)(join(bin, 'buf'), ['generate', '--output', directory], {
      cwd: root,
      env: { ...process.env, PATH: `${bin}:${process.env.PATH ?? ''}` },
    });
    const fresh = await files(join(directory, 'src/gen'));
    expect(fresh.size).toBeGreaterThan(0);
    expect(await files(join(root, 'src/gen'))).toEqual(fresh);
  } finally {
    await rm(directory, { recursive: true });
  }
}, 60_000);
