import { readFileSync } from 'node:fs';
import {
  BuildCache,
  type ConversionEvent,
  type ConvertOptions,
  NYDUS_ARTIFACT,
  NYDUS_CONFIG,
  NYDUS_FEATURE,
  openChunkDictionary,
  openNydusImage,
  revertImage,
} from '@pantala/convert';
import { nydusBootstrap } from '@pantala/convert/nydus-bootstrap';
import { copyImage, MEDIA_TYPES, openImageSource, openImageTarget } from '@pantala/oci';
import { compareTrees, makeCorpus, type Registry, readTree, run, type Scratch } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ConversionStage, convert, file, folder, text } from './lib/conversion.ts';
import { digestOf, type MadeImage, makeImage, putImage, putIndex, tarOf, treeOf } from './lib/images.ts';

const byRoot = test.skipIf(process.getuid?.() !== 0);

let stage: ConversionStage;
let scratch: Scratch;
let registry: Registry;
let host: string;
let image: MadeImage;
let tars: readonly Buffer[];

beforeAll(async () => {
  stage = await ConversionStage.start();
  ({ scratch, registry, host, image, tars } = stage);
});

afterAll(() => stage[Symbol.asyncDispose]());

describe('several platforms', () => {
  const source = () => `${host}/multi:v1`;

  beforeAll(async () => {
    const arm = makeImage([{ tar: tars[0] as Buffer }, { tar: await tarOf([file('arm', 'arm')]) }], {
      architecture: 'arm64',
    });
    await putIndex(source(), [
      { image, architecture: 'amd64' },
      { image: arm, architecture: 'arm64' },
    ]);
  });

  test('become an index of Nydus images; shared layers are converted once', async () => {
    const events: ConversionEvent[] = [];
    const report = await convert(source(), `${host}/multi:all`, {
      platforms: 'all',
      progress: (event) => events.push(event),
    });
    expect(report.mediaType).toBe(MEDIA_TYPES.ociIndex);
    expect(report.images.map(({ platform }) => platform.architecture)).toEqual(['amd64', 'arm64']);
    expect(events.filter(({ kind }) => kind === 'layer-done')).toHaveLength(4);
    await using found = await openImageSource(`${host}/multi:all`);
    const arm = await openNydusImage(found, { platform: { os: 'linux', architecture: 'arm64' } });
    expect(arm.image.root.entries.has('arm')).toBe(true);
    const bootstrap = await nydusBootstrap(found, { platform: { os: 'linux', architecture: 'arm64' } });
    expect(bootstrap.equals(arm.bootstrap)).toBe(true);
  });

  test('stand beside their sources in a merged index, marked for newer and older readers', async () => {
    const report = await convert(source(), `${host}/other/multi:merged`, { platforms: 'all', mergeIndex: true });
    await using found = await openImageSource(`${host}/other/multi:merged`);
    const { manifest, bytes } = await found.root();
    if (manifest.kind !== 'index') throw new Error('no index');
    expect(manifest.manifests.map(({ artifactType }) => artifactType)).toEqual([
      undefined,
      undefined,
      NYDUS_ARTIFACT,
      NYDUS_ARTIFACT,
    ]);
    const document = JSON.parse(bytes.toString()) as { manifests: { platform: object }[] };
    expect(document.manifests[2]?.platform).toEqual({
      architecture: 'amd64',
      os: 'linux',
      'os.features': [NYDUS_FEATURE],
    });
    const nydus = await openNydusImage(found, { platform: { os: 'linux', architecture: 'arm64' } });
    expect(nydus.found.fetched.digest).toBe(report.images[1]?.digest);
    expect(nydus.found.manifest.config.mediaType).toBe(NYDUS_CONFIG);
    // The source's images are all there, and another conversion finds them, not ours.
    await using copy = await openImageTarget(`oci:${scratch.join('merged')}`);
    expect((await copyImage(found, copy)).digest).toBe(report.digest);
    const again = await convert(`${host}/other/multi:merged`, `${host}/other/multi:again`, {
      platforms: 'all',
      mergeIndex: true,
    });
    expect(again.digest).toBe(report.digest);
  });

  test('become container images again, each its own', async () => {
    await convert(source(), `${host}/multi:merged`, { platforms: 'all', mergeIndex: true });
    await using merged = await openImageSource(`${host}/multi:merged`);
    await using target = await openImageTarget(`${host}/multi:back`);
    const report = await revertImage(merged, target, { platforms: 'all' });
    expect(report.mediaType).toBe(MEDIA_TYPES.ociIndex);
    await using back = await openImageSource(`${host}/multi:back`);
    const { bytes } = await back.root();
    const { manifests } = JSON.parse(bytes.toString()) as { manifests: { digest: string; platform: object }[] };
    expect(manifests.map(({ digest }) => digest)).toEqual(report.images.map(({ digest }) => digest));
    expect(manifests.map(({ platform }) => platform)).toEqual([
      { architecture: 'amd64', os: 'linux' },
      { architecture: 'arm64', os: 'linux' },
    ]);
    const plain = await convert(`${host}/multi:back`, `${host}/multi:again`, { platforms: 'all' });
    expect(plain.images.map(({ layers }) => layers)).toEqual([1, 1]);
  });

  test('one of them is a manifest', async () => {
    const platforms = [{ os: 'linux', architecture: 'arm64' }];
    const report = await convert(source(), `${host}/multi:arm`, { platforms });
    expect(report).toMatchObject({ mediaType: MEDIA_TYPES.ociManifest, images: [{ platform: platforms[0] }] });
    await expect(
      convert(source(), `${host}/multi:none`, { platforms: [{ os: 'linux', architecture: 'riscv64' }] }),
    ).rejects.toThrow('no image for linux/riscv64');
  });

  test('a Nydus image that refers to its source is found from there', async () => {
    const report = await convert(`${host}/app:v1`, `${host}/referred:nydus`, { referrer: true });
    await using found = await openImageSource(`${host}/referred:nydus`);
    const { manifest } = await found.root();
    expect(manifest.subject).toMatchObject({ digest: image.digest, size: image.manifest.length });
    const referrers = (await found.repository?.referrers(image.digest)) ?? [];
    expect(referrers.map(({ digest }) => digest)).toEqual([report.digest]);
    expect((await found.manifest(image.digest)).digest).toBe(image.digest);
  });
});

describe('what was stored before', () => {
  test('a cache spares reading the layers; the result is the same', async () => {
    const cached = async (target: string) => {
      await using cache = await BuildCache.open(`${host}/cache/app:v1`);
      const events: ConversionEvent[] = [];
      const report = await convert(`${host}/app:v1`, target, { cache, progress: (event) => events.push(event) });
      return { report, done: events.filter((event) => event.kind === 'layer-done').map((event) => event.cached) };
    };
    const first = await cached(`${host}/cached/one:v1`);
    expect(first.done).toEqual([false, false, false]);
    registry.resetCount();
    const second = await cached(`${host}/cached/two:v1`);
    expect(second.done).toEqual([true, true, true]);
    expect(second.report.digest).toBe(first.report.digest);
    for (const layer of image.layers) expect(registry.bytesOut(layer.digest)).toBe(0);
    const plain = await convert(`${host}/app:v1`, `${host}/cached/three:v1`);
    expect(plain.digest).toBe(first.report.digest);
  });

  test('built in another way it is another layer in the cache', async () => {
    const [etc, both] = [['/etc'], ['/opaque', '/etc']];
    // What comes first in a blob is part of it; what an image's bootstrap names is not.
    const ways: readonly (readonly [ConvertOptions, cached: boolean])[] = [
      [{}, false],
      [{ build: { chunkSize: 65_536 } }, false],
      [{ prefetch: { policy: 'blob', patterns: etc } }, false],
      [{ prefetch: { policy: 'blob', patterns: both } }, false],
      [{ prefetch: { policy: 'blob', patterns: both.toReversed() } }, false],
      [{ prefetch: { policy: 'blob', patterns: both } }, true],
      [{ prefetch: { policy: 'fs', patterns: etc } }, true],
    ];
    for (const [index, [options, expected]] of ways.entries()) {
      await using cache = await BuildCache.open(`${host}/cache/ways:v1`);
      const events: ConversionEvent[] = [];
      const progress = (event: ConversionEvent) => events.push(event);
      const report = await convert(`${host}/app:v1`, `${host}/ways/cached:v1`, { ...options, cache, progress });
      const cached = events.filter((event) => event.kind === 'layer-done').map((event) => event.cached);
      expect([index, cached]).toEqual([index, image.layers.map(() => expected)]);
      if (!expected) continue;
      expect(report.digest).toBe((await convert(`${host}/app:v1`, `${host}/ways/plain:v1`, options)).digest);
    }
  });

  test('a cache is an image with the annotations of one, in a folder too', async () => {
    const place = `oci:${scratch.join('cache')}`;
    {
      await using cache = await BuildCache.open(place);
      await convert(`${host}/app:v1`, `oci:${scratch.join('with-cache')}`, { cache });
    }
    await using source = await openImageSource(place);
    const { manifest } = await source.root();
    expect(manifest.annotations.get('containerd.io/snapshot/nydus-cache')).toBe('v1');
    if (manifest.kind !== 'image') throw new Error('an index');
    const sources = manifest.layers.map(
      (layer) => layer.annotations.get('containerd.io/snapshot/nydus-source-digest') ?? '',
    );
    expect(sources.toSorted()).toEqual(image.layers.map(({ digest }) => digest).toSorted());
    await using small = await BuildCache.open(place, { maxRecords: 1 });
    const other = makeImage([{ tar: await tarOf([file('other', 'other')]) }]);
    await putImage(`${host}/other:v1`, other);
    await convert(`${host}/other:v1`, `oci:${scratch.join('with-cache')}:other`, { cache: small });
    const { manifest: left } = await source.root();
    expect(left.kind === 'image' ? left.layers : []).toHaveLength(1);
    await expect(BuildCache.open(scratch.join('cache.tar'))).rejects.toMatchObject({ code: 'invalid-argument' });
  });

  byRoot('chunks of a dictionary are not stored again', async () => {
    await convert(`${host}/app:v1`, `${host}/dictionary:v1`);
    const shared = text(3_000_000, 'kept ');
    const upper = makeImage([
      { tar: await tarOf([folder(''), file('copy', shared), file('own', text(70_000, 'own '))]) },
    ]);
    await putImage(`${host}/upper:v1`, upper);
    await using from = await openImageSource(`${host}/dictionary:v1`);
    const dictionary = await openChunkDictionary(from);
    const report = await convert(`${host}/upper:v1`, `${host}/upper:nydus`, { dictionary });
    const [own, borrowed] = report.images[0]?.blobs ?? [];
    expect(report.images[0]?.blobs).toHaveLength(2);
    expect(dictionary.blobs.has(borrowed?.digest.slice(7) ?? '')).toBe(true);
    await using source = await openImageSource(`${host}/upper:nydus`);
    const found = await treeOf(source, scratch.join('upper'));
    expect(found.get('copy')).toMatchObject({ size: shared.length, sha: digestOf(Buffer.from(shared)).slice(7) });
    const plain = await convert(`${host}/upper:v1`, `${host}/upper:plain`);
    expect(own?.size).toBeLessThan(plain.images[0]?.blobs[0]?.size ?? 0);
  });
});

describe('and back', () => {
  byRoot.each([
    ['gzip', 'application/vnd.oci.image.layer.v1.tar+gzip'],
    ['zstd', 'application/vnd.oci.image.layer.v1.tar+zstd'],
  ] as const)(
    'a Nydus image becomes one of one layer with the same tree (%s)',
    async (compression, mediaType) => {
      const name = `back-${compression}`;
      await makeCorpus(scratch.join(name), { many: 100 });
      const tar = scratch.join(`${name}.tar`);
      await run('tar', [
        '-C',
        scratch.join(name),
        '--numeric-owner',
        '--format=pax',
        '--xattrs',
        '--xattrs-include=*',
        '-cf',
        tar,
        '.',
      ]);
      await putImage(
        `${host}/corpus:${compression}`,
        makeImage([{ tar: readFileSync(tar) }, { tar: await tarOf([file('upper', 'x')]) }]),
      );
      await convert(`${host}/corpus:${compression}`, `${host}/corpus:nydus`);
      await using source = await openImageSource(`${host}/corpus:nydus`);
      const nydus = await treeOf(source, scratch.join(`${name}-nydus`));
      const corpus = await readTree(scratch.join(name), ['special/socket']);
      const rest = new Map([...nydus].filter(([path]) => path !== 'upper'));
      // GNU tar takes access control lists for no extended attributes, and keeps no links of devices and fifos together.
      const except = (path: string) =>
        path.endsWith('list')
          ? (['xattr', 'mode'] as const)
          : /^links\/(?:device|fifo)/.test(path)
            ? (['nlink', 'hl'] as const)
            : [];
      expect(compareTrees(corpus, rest, { except })).toEqual([]);
      await using target = await openImageTarget(`${host}/corpus:back-${compression}`);
      const report = await revertImage(source, target, { compression });
      expect(report.images[0]?.lost).toEqual([]);
      await using back = await openImageSource(`${host}/corpus:back-${compression}`);
      const { manifest } = await back.root();
      if (manifest.kind !== 'image') throw new Error('an index');
      expect(manifest.layers.map((layer) => layer.mediaType)).toEqual([mediaType]);
      const [layer] = manifest.layers;
      expect(report.images[0]?.layer).toEqual({ digest: layer?.digest, size: layer?.size });
      await convert(`${host}/corpus:back-${compression}`, `${host}/corpus:again`);
      await using again = await openImageSource(`${host}/corpus:again`);
      expect(compareTrees(nydus, await treeOf(again, scratch.join(`${name}-again`)))).toEqual([]);
    },
    120_000,
  );
});
