import { execFileSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { byteString, byteStringOf, sleep } from '@pantala/base';
import { setXattr, systemLz4 } from '@pantala/linux';
import { nodeAt, walk } from '@pantala/rafs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BlobBuilder, chunkList } from '../../src/build/blob-builder.ts';
import { compileBuildOptions } from '../../src/build/options.ts';
import { BlobFile, BuildPool, buildFromDirectory, type LayerOptions } from '../../src/index.ts';
import { FIXTURES, fileDigests, MemorySink } from './lib/build.ts';

let scratch: string;
beforeAll(() => {
  scratch = mkdtempSync(join(tmpdir(), 'pantala-build-'));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

async function built(directory: string, options: LayerOptions) {
  const sink = new MemorySink();
  const layer = await buildFromDirectory(directory, sink, options);
  return { ...layer, sink, blobs: new Map(layer.written === undefined ? [] : [[layer.written.id, sink.bytes]]) };
}

function folder(name: string): string {
  const path = join(scratch, name);
  mkdirSync(path);
  return path;
}

test('everything that a directory says of its entries', async () => {
  const source = folder('entries');
  writeFileSync(join(source, 'file'), 'content', { mode: 0o640 });
  linkSync(join(source, 'file'), join(source, 'linked'));
  symlinkSync('nowhere/at all', join(source, 'link'));
  lutimesSync(join(source, 'link'), 5, 77);
  mkdirSync(join(source, 'inner'));
  writeFileSync(Buffer.concat([Buffer.from(join(source, 'inner/')), Buffer.from([0xff, 0x0a, 0x20])]), '');
  setXattr(Buffer.from(join(source, 'file')), Buffer.from('user.note'), Buffer.from([1, 0, 2]));

  const { image, blobs } = await built(source, {});
  const file = nodeAt(image.root, 'file');
  expect(file).toMatchObject({ kind: 'regular', size: 7, attributes: { mode: 0o640, uid: process.getuid?.() } });
  expect(nodeAt(image.root, 'linked')).toBe(file);
  expect(file?.attributes.xattrs.get('user.note')).toEqual(Buffer.from([1, 0, 2]));
  expect(nodeAt(image.root, 'link')).toMatchObject({
    kind: 'symlink',
    target: 'nowhere/at all',
    attributes: { mtime: { seconds: 77 } },
  });
  expect(nodeAt(image.root, 'inner/\xff\n ')).toMatchObject({ kind: 'regular', size: 0 });
  expect((await fileDigests(image, blobs)).size).toBe(3);
});

test('a sparse file of a hundred gigabytes costs what is in it', async () => {
  const source = folder('sparse');
  const size = 100 * 1024 ** 3;
  const descriptor = openSync(join(source, 'disk'), 'w');
  ftruncateSync(descriptor, size);
  writeSync(descriptor, Buffer.from('in the middle'), 0, 13, size / 2 + 5);
  closeSync(descriptor);
  const { image, sink } = await built(source, {});
  const file = nodeAt(image.root, 'disk');
  if (file?.kind !== 'regular') throw new Error('no file');
  expect(file.content).toHaveLength(size / 1024 ** 2);
  expect(new Set(file.content).size).toBe(2);
  expect(file.content.findIndex((chunk) => chunk !== file.content[0])).toBe(size / 2 / 1024 ** 2);
  expect(sink.bytes.length).toBeLessThan(10_000);
});

test('prefetched files lie first in the blob, or are named in the image', async () => {
  const source = folder('prefetch');
  for (const name of ['a', 'b', 'c', 'd']) {
    mkdirSync(join(source, name));
    writeFileSync(join(source, name, 'file.txt'), `content of ${name}`);
  }
  const patterns = ['/c', '**/b/*.txt', '/nothing', ''];
  const blob = await built(source, { prefetch: { policy: 'blob', patterns }, compressor: 'none' });
  expect(blob.sink.bytes.toString('latin1').slice(0, 26)).toBe('content of ccontent of bco');
  expect(blob.image.prefetch).toEqual([]);
  const named = await built(source, { prefetch: { policy: 'fs', patterns }, compressor: 'none' });
  expect(named.image.prefetch).toEqual([nodeAt(named.image.root, 'c'), nodeAt(named.image.root, 'b/file.txt')]);
  expect((await built(source, { prefetch: { policy: 'fs' } })).image.prefetch).toHaveLength(1);
});

test('bytes are written one after the other, also behind content that is stored already', async () => {
  const source = folder('twice');
  // Several parcels, every second of which has nothing new.
  for (let index = 0; index < 12; index++) {
    writeFileSync(
      join(source, `${index}`.padStart(2, '0')),
      Buffer.alloc(3 << 20, index % 2 === 0 ? `a${index}` : 'b'),
    );
  }
  let writing = 0;
  let most = 0;
  const sink = new MemorySink();
  const slow = {
    async write(parts: readonly Uint8Array[]) {
      writing += 1;
      most = Math.max(most, writing);
      await sleep(20);
      await sink.write(parts);
      writing -= 1;
    },
  };
  await buildFromDirectory(source, slow, { compressor: 'none', chunkSize: 1 << 20 });
  expect(sink.calls).toBeGreaterThan(4);
  expect(most).toBe(1);
});

test('a file that became shorter is an error that names it', async () => {
  const source = folder('shorter');
  writeFileSync(join(source, 'file'), 'short');
  await using builder = new BlobBuilder(compileBuildOptions({}), new MemorySink());
  await builder.addFile({ path: byteStringOf(join(source, 'file')), size: 6 }, chunkList(6, 4096));
  await expect(builder.finish()).rejects.toMatchObject({
    code: 'failed-precondition',
    message: expect.stringContaining('shorter/file'),
  });
});

describe('a blob in a folder', () => {
  test('appears under its id, and not at all when the build fails', async () => {
    const [source, blobs] = [folder('kept'), join(scratch, 'blobs/new')];
    writeFileSync(join(source, 'file'), 'content');
    {
      await using sink = await BlobFile.create(blobs);
      const { written } = await buildFromDirectory(source, sink, {});
      await sink.keep(written?.id as string);
      expect(readdirSync(blobs)).toEqual([written?.id]);
    }
    await expect(
      (async () => {
        await using sink = await BlobFile.create(blobs);
        await buildFromDirectory(join(source, 'missing'), sink, {});
      })(),
    ).rejects.toMatchObject({ code: 'not-found' });
    expect(readdirSync(blobs)).toHaveLength(1);
  });
});

test('a disk that is full is an error, and the next build works', async () => {
  const source = folder('full');
  writeFileSync(join(source, 'file'), Buffer.alloc(5 << 20, 'some content that does not repeat too soon'));
  const descriptor = openSync('/dev/full', 'w');
  const options = compileBuildOptions({ compressor: 'none' });
  await using pool = new BuildPool(options);
  try {
    const full = buildFromDirectory(source, { descriptor }, { compressor: 'none', pool });
    await expect(full).rejects.toMatchObject({
      code: 'disk-full',
      message: expect.stringContaining('ENOSPC'),
    });
  } finally {
    closeSync(descriptor);
  }
  const again = await built(source, { compressor: 'none', pool });
  expect(again.written?.id).toBe((await built(source, { compressor: 'none' })).written?.id);
});

describe('the same directory as nydus-image', () => {
  const blobOf = (fixture: string) => readdirSync(join(FIXTURES, fixture, 'blobs'))[0];
  let source: string;
  beforeAll(() => {
    source = folder('mini');
    execFileSync('tar', ['-C', source, '--no-same-owner', '-xzf', join(FIXTURES, 'src/mini.tar.gz')], {
      stdio: 'ignore',
    });
  });

  test('gives the same blob without compression, to the byte', async () => {
    expect((await built(source, { compressor: 'none' })).written?.id).toBe(blobOf('m-none'));
  });

  test.skipIf(typeof systemLz4() === 'string')('and with LZ4 of the system', async () => {
    expect((await built(source, { compressor: 'lz4_block' })).written?.id).toBe(blobOf('m-lz4_block'));
    const small = await built(source, { compressor: 'lz4_block', chunkSize: 0x1_0000 });
    expect(small.written?.id).toBe(blobOf('m-cs0x10000-lz4'));
  });

  test('names are read as bytes', async () => {
    const { image } = await built(source, {});
    const names = [...walk(image.root)].map(({ path }) => path);
    expect(names.some((path) => /[\u0080-\u00ff]/.test(path))).toBe(true);
    expect(names.every((path) => byteString(Buffer.from(path, 'latin1')) === path)).toBe(true);
  });
});

test('the sink takes one write at a time, also after files that have nothing new', async () => {
  const source = folder('nothing-new');
  const MIB = 1024 * 1024;
  // As many as fill parcels of their own: new ones, the same again, new ones.
  for (const [index, content] of [1, 2, 3, 1, 2, 3, 1, 2, 3, 4, 5, 6].entries()) {
    const name = String.fromCharCode(0x61 + index);
    writeFileSync(join(source, name), Buffer.alloc(MIB, `${content}`.repeat(4095)));
  }
  let writing = 0;
  let most = 0;
  const slow = {
    async write(): Promise<void> {
      most = Math.max(most, ++writing);
      for (let turn = 0; turn < 200; turn++) await new Promise(setImmediate);
      writing--;
    },
  };
  await buildFromDirectory(source, slow, { compressor: 'none', workers: 2 });
  expect(most).toBe(1);
});
