import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { PantalaError } from '@pantala/base';
import {
  type CopyEvent,
  copyImage,
  type HttpTransport,
  type ImageSource,
  locateImage,
  MEDIA_TYPES,
  NodeTransport,
  openImageSource,
  openImageTarget,
} from '@pantala/oci';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { digestOf, imageOf, indexOf, putContent, type TestImage, tarOf } from '../support/images.ts';
import { startRegistry, type TestRegistry } from '../support/registry.ts';

let folder: string;
let registry: TestRegistry;
let host: string;
let amd64: TestImage;
let arm64: TestImage;
let index: Buffer;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'images-'));
  registry = await startRegistry();
  host = new URL(registry.url).host;
  const shared = { 'etc/shared': 'the same layer in both' };
  amd64 = await imageOf('amd64', [shared, { 'bin/sh': 'amd64'.repeat(10_000) }, {}]);
  arm64 = await imageOf('arm64', [shared, { 'bin/sh': 'arm64'.repeat(10_000) }, {}]);
  index = indexOf([
    { image: amd64, architecture: 'amd64' },
    { image: arm64, architecture: 'arm64' },
  ]);
  await using target = await openImageTarget(`${host}/source/app:v1`);
  for (const image of [amd64, arm64]) {
    await putContent(target, image);
    await target.putManifest(image.bytes, MEDIA_TYPES.ociManifest);
  }
  await target.finish({ bytes: index, mediaType: MEDIA_TYPES.ociIndex });
});

afterAll(async () => {
  await registry[Symbol.asyncDispose]();
  rmSync(folder, { recursive: true, force: true });
});

async function copy(from: string, to: string, options: Parameters<typeof copyImage>[2] = {}) {
  await using source = await openImageSource(from);
  await using target = await openImageTarget(to);
  return await copyImage(source, target, options);
}

async function blobOf(source: ImageSource, bytes: Buffer): Promise<Buffer> {
  const pieces: Buffer[] = [];
  for await (const piece of source.blob({ digest: digestOf(bytes), size: bytes.length })) pieces.push(piece);
  return Buffer.concat(pieces);
}

/** Everything is there, byte by byte. */
async function expectIndex(text: string): Promise<void> {
  await using source = await openImageSource(text);
  const root = await source.root();
  expect(root.digest).toBe(digestOf(index));
  expect(root.bytes.equals(index)).toBe(true);
  for (const image of [amd64, arm64]) {
    expect((await source.manifest(image.digest)).bytes.equals(image.bytes)).toBe(true);
    for (const bytes of [image.config, ...image.layers.map((layer) => layer.bytes)])
      expect((await blobOf(source, bytes)).equals(bytes)).toBe(true);
  }
}

describe('where an image is', () => {
  test.each([
    ['alpine', { kind: 'registry', reference: { domain: 'docker.io', path: 'library/alpine' } }],
    ['docker://host.name/a:b', { kind: 'registry', reference: { domain: 'host.name', path: 'a', tag: 'b' } }],
    ['oci:some/folder:v1', { kind: 'layout', path: 'some/folder', name: 'v1' }],
    ['oci-archive:x.tar', { kind: 'archive', path: 'x.tar', name: undefined }],
    ['docker-archive:x:docker.io/a/b:c', { kind: 'archive', path: 'x', name: 'docker.io/a/b:c' }],
    ['./new.tar', { kind: 'archive', path: './new.tar', name: undefined }],
    ['/new/folder', { kind: 'layout', path: '/new/folder', name: undefined }],
    ['image.tar.gz:v2', { kind: 'archive', path: 'image.tar.gz', name: 'v2' }],
  ])('%s', async (text, location) => {
    expect(await locateImage(text)).toMatchObject(location);
  });

  test.each(['oci:', 'oci::v1', 'host.name/Upper'])('%s is nowhere', async (text) => {
    await expect(locateImage(text)).rejects.toMatchObject({ code: 'invalid-argument' });
  });
});

describe('copies', () => {
  test('of all platforms, from anywhere to anywhere, are the same bytes', async () => {
    const places = [
      `oci:${folder}/layout:v1`,
      `${folder}/archive.tar`,
      `${host}/target/other:v2`,
      `oci-archive:${folder}/second.tar:v1`,
      `${folder}/layout2`,
    ];
    let from = `${host}/source/app:v1`;
    for (const place of places) {
      const report = await copy(from, place);
      expect(report.digest).toBe(digestOf(index));
      expect(report.blobs).toBe(6);
      await expectIndex(place);
      from = place;
    }
    const again = await copy(`${host}/source/app:v1`, places[0] as string);
    expect(again).toMatchObject({ blobs: 6, bytes: 0 });
  });

  test('within a registry mount what is there', async () => {
    const events: CopyEvent[] = [];
    await copy(`${host}/source/app:v1`, `${host}/source/mounted:v1`, { progress: (event) => events.push(event) });
    const outcomes = events.flatMap((event) => (event.kind === 'blob' ? [event.outcome] : []));
    expect(outcomes).toEqual(Array(6).fill('mounted'));
  });

  test('of one platform have that image alone', async () => {
    const place = `oci:${folder}/one:v1`;
    const report = await copy(`${host}/source/app:v1`, place, { platform: { os: 'linux', architecture: 'arm64' } });
    expect(report).toMatchObject({ digest: arm64.digest, blobs: 4 });
    await expect(
      copy(`${host}/source/app:v1`, place, { platform: { os: 'linux', architecture: 's390x' } }),
    ).rejects.toThrow('there is linux/amd64, linux/arm64');
  });

  test('into a folder stand beside what is there, under their names', async () => {
    const layout = `oci:${folder}/several`;
    await copy(`${host}/source/app:v1`, `${layout}:both`);
    for (const architecture of ['amd64', 'arm64'])
      await copy(`${host}/source/app:v1`, `${layout}:${architecture}`, { platform: { os: 'linux', architecture } });
    await copy(`${host}/source/app:v1`, `${layout}:both`);
    await using source = await openImageSource(`${layout}:arm64`);
    expect((await source.root()).digest).toBe(arm64.digest);
    await using unclear = await openImageSource(layout);
    await expect(unclear.root()).rejects.toThrow('has 3 images, say which');
    await using missing = await openImageSource(`${layout}:none`);
    await expect(missing.root()).rejects.toMatchObject({ code: 'not-found' });
    const files = readdirSync(`${folder}/several`);
    expect(files.toSorted((a, b) => (a < b ? -1 : 1))).toEqual(['blobs', 'index.json', 'oci-layout']);
  });

  test('that fail leave no archive, and no image in a folder', async () => {
    await copy(`${host}/source/app:v1`, `oci:${folder}/damaged`);
    const [layer] = amd64.layers;
    writeFileSync(join(folder, 'damaged/blobs', (layer?.digest ?? '').replace(':', '/')), 'something else');
    for (const target of [`${folder}/none.tar`, `oci:${folder}/none`])
      await expect(copy(`oci:${folder}/damaged`, target)).rejects.toMatchObject({ code: 'data-loss' });
    expect(readdirSync(folder).filter((name) => name.startsWith('none.tar'))).toEqual([]);
    expect(readdirSync(join(folder, 'none'))).toEqual(['blobs']);
  });

  test('into a registry that breaks off are sent again', async () => {
    let broken = 0;
    const plain = new NodeTransport();
    const transport: HttpTransport = {
      request: (request) => {
        if (request.method !== 'PUT' || !request.url.pathname.includes('/blobs/') || broken >= 2)
          return plain.request(request);
        broken++;
        return Promise.reject(new PantalaError('unavailable', 'the connection broke'));
      },
    };
    await copy(`${host}/source/app:v1`, `oci:${folder}/sent`);
    await using source = await openImageSource(`oci:${folder}/sent`);
    await using target = await openImageTarget(`${host}/broken/app:v1`, { transport });
    const report = await copyImage(source, target, { concurrency: 1 });
    expect([report.digest, broken]).toEqual([digestOf(index), 2]);
    plain[Symbol.dispose]();
    await expect(openImageTarget(`${host}/broken/app@${report.digest}`)).rejects.toThrow('written under a tag');
  });

  test('refuse layers that only their owner hands out', async () => {
    const foreign = JSON.parse(amd64.bytes.toString()) as { layers: { mediaType: string; digest: string }[] };
    for (const layer of foreign.layers) {
      layer.mediaType = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip';
      layer.digest = `sha256:${'1'.repeat(64)}`;
    }
    await using target = await openImageTarget(`oci:${folder}/foreign`);
    await putContent(target, amd64);
    await target.finish({ bytes: Buffer.from(JSON.stringify(foreign)), mediaType: MEDIA_TYPES.ociManifest });
    await expect(copy(`oci:${folder}/foreign`, `${folder}/foreign.tar`)).rejects.toMatchObject({
      code: 'failed-precondition',
    });
  });
});

describe('archives of docker save', () => {
  async function saved(tags: readonly string[], change: (list: object[]) => void = () => {}): Promise<Buffer> {
    const [first, second] = amd64.layers.map((layer) => layer.tar);
    const list = [{ Config: 'c.json', RepoTags: tags, Layers: ['a/layer.tar', 'b/layer.tar', 'c/layer.tar'] }];
    change(list);
    const config = Buffer.from(
      JSON.stringify({
        architecture: 'amd64',
        os: 'linux',
        rootfs: { type: 'layers', diff_ids: [first, second, first].map((tar) => digestOf(tar as Buffer)) },
      }),
    );
    const files = { 'a/layer.tar': first as Buffer, 'b/layer.tar': second as Buffer, 'c.json': config };
    return tarOf({ ...files, 'manifest.json': JSON.stringify(list) }, { 'c/layer.tar': '../a/layer.tar' });
  }

  test.each([
    ['as it is', (bytes: Buffer) => bytes],
    ['compressed', gzipSync],
  ])('%s', async (name, form) => {
    const path = join(folder, `saved-${name.length}`);
    writeFileSync(path, form(await saved(['app:v1'])));
    await using source = await openImageSource(`docker-archive:${path}`);
    const { manifest } = await source.root();
    expect(manifest).toMatchObject({ kind: 'image', mediaType: MEDIA_TYPES.dockerManifest });
    const layers = manifest.kind === 'image' ? manifest.layers : [];
    const [first, second] = amd64.layers.map((layer) => layer.tar);
    expect(layers.map((layer) => layer.digest)).toEqual([first, second, first].map((tar) => digestOf(tar as Buffer)));
    expect((await blobOf(source, second as Buffer)).equals(second as Buffer)).toBe(true);
    for (const wanted of ['app:v1', 'docker.io/library/app:v1', 'v1']) {
      await using named = await openImageSource(`docker-archive:${path}:${wanted}`);
      expect((await named.root()).manifest.kind).toBe('image');
    }
    const report = await copy(`docker-archive:${path}`, `${host}/from/docker:${name.length}`);
    expect(report.blobs).toBe(3);
  });

  test('names in it reach nothing outside of it', async () => {
    writeFileSync(join(folder, 'secret'), 'secret');
    for (const path of ['../secret', join(folder, 'secret'), 'a/../../secret']) {
      const archive = join(folder, 'outside.tar');
      writeFileSync(
        archive,
        await saved([], (list) => Object.assign(list[0] as object, { Layers: [path, path, path] })),
      );
      await using source = await openImageSource(archive);
      await expect(source.root()).rejects.toMatchObject({ code: 'not-found' });
    }
    const linked = await tarOf({ 'manifest.json': '[]' }, { 'a/b': '../../etc/passwd' });
    writeFileSync(join(folder, 'linked.tar'), linked);
    await expect(openImageSource(join(folder, 'linked.tar'))).rejects.toThrow('leaves the root');
  });

  test('links in a circle end', async () => {
    const links = { 'manifest.json': 'other', other: 'manifest.json' };
    writeFileSync(join(folder, 'circle.tar'), await tarOf({}, links));
    await expect(openImageSource(join(folder, 'circle.tar'))).rejects.toThrow('without end');
  });

  test('other archives are none', async () => {
    writeFileSync(join(folder, 'other.tar'), await tarOf({ file: 'x' }));
    await expect(openImageSource(join(folder, 'other.tar'))).rejects.toThrow('no archive of an image');
    await expect(openImageSource(join(folder, 'missing.tar'))).rejects.toMatchObject({ code: 'not-found' });
    await expect(openImageSource('oci:/nowhere')).rejects.toMatchObject({ code: 'not-found' });
  });

  test('what we write has the list that docker load reads', async () => {
    await copy(`${host}/source/app:v1`, `${folder}/load.tar:app:v1`, {
      platform: { os: 'linux', architecture: 'amd64' },
    });
    const list = JSON.parse(
      execFileSync('tar', ['-xOf', `${folder}/load.tar`, 'manifest.json']).toString(),
    ) as object[];
    expect(list).toEqual([
      {
        Config: `blobs/sha256/${digestOf(amd64.config).slice(7)}`,
        RepoTags: ['app:v1'],
        Layers: amd64.layers.map((layer) => `blobs/sha256/${layer.digest.slice(7)}`),
      },
    ]);
    expect(readFileSync(`${folder}/load.tar`).length % 512).toBe(0);
  });
});
