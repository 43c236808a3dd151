import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import {
  BuildCache,
  type ConversionEvent,
  type ConvertOptions,
  convertImage,
  NYDUS_ARTIFACT,
  NYDUS_BLOB,
  NYDUS_CONFIG,
  NYDUS_FEATURE,
  openChunkDictionary,
  openNydusImage,
  revertImage,
} from '@pantala/convert';
import { nydusBootstrap } from '@pantala/convert/nydus-bootstrap';
import { copyImage, MEDIA_TYPES, openImageSource, openImageTarget, parseImageConfig } from '@pantala/oci';
import { compareTrees, loopbackPlace, makeCorpus, Registry, readTree, run, Scratch } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  digestOf,
  type Entry,
  type MadeImage,
  makeImage,
  putImage,
  putIndex,
  tarOf,
  treeOf,
  unpackedByTar,
} from './lib/images.ts';

const byRoot = test.skipIf(process.getuid?.() !== 0);

let scratch: Scratch;
let registry: Registry;
let host: string;

beforeAll(async () => {
  scratch = Scratch.create('convert');
  registry = await Registry.start({ place: loopbackPlace() });
  host = registry.host;
});

afterAll(async () => {
  await registry[Symbol.asyncDispose]();
  await scratch[Symbol.asyncDispose]();
});

async function convert(from: string, to: string, options: ConvertOptions = {}) {
  await using source = await openImageSource(from);
  await using target = await openImageTarget(to);
  return await convertImage(source, target, options);
}

const text = (length: number, seed: string) => seed.repeat(Math.ceil(length / seed.length)).slice(0, length);
const folder = (path: string, more: Partial<Entry> = {}): Entry => ({ kind: 'directory', path, ...more });
const file = (path: string, content: string, more: Partial<Entry> = {}): Entry => ({ path, content, ...more });
const link = (path: string, linkTarget: string): Entry => ({ kind: 'hardlink', path, linkTarget });

const LAYERS: readonly (readonly Entry[])[] = [
  [
    folder('', { mode: 0o711, mtime: { seconds: 5, nanoseconds: 0 } }),
    folder('etc', { uid: 3, gid: 4, mode: 0o750 }),
    file('etc/removed', 'gone later'),
    file('etc/kept', text(3_000_000, 'kept ')),
    folder('opaque'),
    file('opaque/hidden', 'gone later too'),
    folder('replaced'),
    file('replaced/inside', 'x'),
    file('suid', 'x', { mode: 0o4711, uid: 70_000, xattrs: new Map([['user.a', Buffer.from('\0=\n')]]) }),
    link('linked', 'suid'),
    { kind: 'symlink', path: 'symlink', linkTarget: '../x' },
    { kind: 'character', path: 'null', major: 1, minor: 3 },
    { kind: 'fifo', path: 'fifo' },
  ],
  [
    // Its directories have owner and mode of the layer below.
    file('etc/.wh.removed', ''),
    file('etc/added', text(5000, 'added')),
    file('opaque/.wh..wh..opq', ''),
    file('opaque/seen', 'seen'),
    file('replaced', 'a file now'),
  ],
  [
    folder('etc', { mode: 0o700 }),
    link('z-second', 'z-first'),
    file('z-first', 'made after its link'),
    file('none', ''),
  ],
];

let image: MadeImage;
let tars: readonly Buffer[];

beforeAll(async () => {
  tars = await Promise.all(LAYERS.map((entries) => tarOf(entries)));
  image = makeImage(
    [
      { tar: tars[0] as Buffer },
      { tar: tars[1] as Buffer, compression: 'zstd' },
      { tar: tars[2] as Buffer, compression: 'none' },
    ],
    { annotations: { 'org.example': 'kept' } },
  );
  await putImage(`${host}/app:v1`, image);
});

describe('a converted image', () => {
  byRoot('shows the tree that its layers make, one over the other', async () => {
    await convert(`${host}/app:v1`, `${host}/app:tree`);
    await using source = await openImageSource(`${host}/app:tree`);
    const found = await treeOf(source, scratch.join('found'));
    // GNU tar makes hard links to what comes later only where that is there already: it gets them in its own order.
    const [first, ...others] = (await Promise.all(
      LAYERS.map((entries) =>
        tarOf(entries.toSorted((a, b) => Number(a.kind === 'hardlink') - Number(b.kind === 'hardlink'))),
      ),
    )) as [Buffer, ...Buffer[]];
    const expected = await unpackedByTar(scratch.join('expected'), [first, ...others]);
    // Writing into directories changes their time, unless the tar says it.
    const touched = new Set(['.', 'opaque']);
    expect(compareTrees(expected, found, { except: (path) => (touched.has(path) ? ['mtime'] : []) })).toEqual([]);
    expect(found.get('.')).toMatchObject({ mode: '40711', mtime: '5000000000' });
    expect(found.get('opaque')).toMatchObject({ mtime: '1600000000000000000' });
  });

  byRoot('has the hard links of a layer to files that only lower layers have', async () => {
    const lower = [
      folder('', { mtime: { seconds: 5, nanoseconds: 0 } }),
      folder('usr'),
      folder('usr/lib'),
      file('usr/lib/big', text(3_000_000, 'big '), { mode: 0o4711, uid: 70_000 }),
      file('usr/lib/small', 'small'),
      { kind: 'symlink', path: 'lib', linkTarget: 'usr/lib' } as const,
    ];
    const upper = [link('usr/again', 'usr/lib/big'), link('second', 'lib/small'), folder('usr')];
    const onlyLink = [link('link', 'lib/big')];
    for (const [index, layers] of [
      [lower, onlyLink],
      [lower, onlyLink, upper],
    ].entries()) {
      const layerTars = await Promise.all(layers.map((entries) => tarOf(entries)));
      const name = `linked-${index}`;
      await putImage(`${host}/${name}:v1`, makeImage(layerTars.map((tar) => ({ tar }))));
      const expected = await unpackedByTar(scratch.join(`${name}-expected`), layerTars);
      const except = (path: string) => (['.', 'usr/lib'].includes(path) ? (['mtime'] as const) : []);
      // The second time the layers come from the cache.
      for (const time of ['first', 'second']) {
        await using cache = await BuildCache.open(`${host}/cache/linked:v1`);
        await convert(`${host}/${name}:v1`, `${host}/${name}:nydus`, { cache });
        await using source = await openImageSource(`${host}/${name}:nydus`);
        const found = await treeOf(source, scratch.join(`${name}-${time}`));
        expect(compareTrees(expected, found, { except })).toEqual([]);
        expect(found.get('link')).toMatchObject({ nlink: 2 + index, size: 3_000_000 });
      }
    }
  });

  test('is an ordinary manifest of blobs and, last, the bootstrap', async () => {
    const report = await convert(`${host}/app:v1`, `${host}/app:nydus`);
    await using source = await openImageSource(`${host}/app:nydus`);
    const { manifest, digest } = await source.root();
    expect(digest).toBe(report.digest);
    if (manifest.kind !== 'image') throw new Error('an index');
    expect(manifest.mediaType).toBe(MEDIA_TYPES.ociManifest);
    expect(manifest.annotations.get('org.example')).toBe('kept');
    expect(manifest.layers.map(({ mediaType }) => mediaType)).toEqual([
      NYDUS_BLOB,
      NYDUS_BLOB,
      NYDUS_BLOB,
      'application/vnd.oci.image.layer.v1.tar+gzip',
    ]);
    const ids = manifest.layers.slice(0, 3).map((layer) => layer.digest.slice(7));
    for (const layer of manifest.layers.slice(0, 3))
      expect([...layer.annotations]).toEqual([['containerd.io/snapshot/nydus-blob', 'true']]);
    expect(Object.fromEntries(manifest.layers[3]?.annotations ?? [])).toEqual({
      'containerd.io/snapshot/nydus-bootstrap': 'true',
      'containerd.io/snapshot/nydus-fs-version': '6',
      'containerd.io/snapshot/nydus-reference-blob-ids': JSON.stringify(ids),
    });
    const nydus = await openNydusImage(source);
    expect((await nydusBootstrap(source)).equals(nydus.bootstrap)).toBe(true);
    expect(nydus.image.blobs.map(({ id }) => id).toSorted()).toEqual(ids.toSorted());
    expect([...nydus.metas.keys()]).toEqual(nydus.image.blobs.map(({ id }) => id));
    const { document, diffIds, history } = parseImageConfig(Buffer.from(JSON.stringify(nydus.config.document)));
    expect(manifest.config.mediaType).toBe('application/vnd.oci.image.config.v1+json');
    expect(document).toMatchObject({ architecture: 'amd64', os: 'linux', config: { Cmd: ['/bin/sh'], Env: ['A=b'] } });
    expect(diffIds.slice(0, 3)).toEqual(ids.map((id) => `sha256:${id}`));
    expect(history).toEqual([
      { created_by: 'FROM scratch', empty_layer: true },
      ...[0, 1, 2].map((index) => ({ created_by: `COPY ${index}` })),
      { created_by: 'Nydus Converter', comment: 'Nydus Bootstrap Layer' },
    ]);
    // The bootstrap layer, by other programs.
    const bytes: Buffer[] = [];
    for await (const piece of source.blob(manifest.layers[3] as (typeof manifest.layers)[number])) bytes.push(piece);
    const tar = execFileSync('gunzip', { input: Buffer.concat(bytes), maxBuffer: 1 << 26 });
    expect(digestOf(tar)).toBe(diffIds[3]);
    const listing = execFileSync('tar', ['tvf', '-'], { input: tar }).toString();
    expect(listing).toMatch(
      /^drwxr-xr-x 0\/0 +0 1970-01-01 00:00 image\/\n-r--r--r-- 0\/0 +\d+ 1970-01-01 00:00 image\/image.boot\n/,
    );
    expect(listing.match(/image\/[0-9a-f]{64}\.blob\.meta/g)).toHaveLength(3);
  });

  test('is the same each time, in whatever order the layers end', async () => {
    const digests = new Set<string>();
    for (const concurrency of [1, 3, 3]) {
      const target = `oci:${scratch.join(`same-${digests.size}-${concurrency}`)}`;
      digests.add((await convert(`${host}/app:v1`, target, { concurrency })).digest);
    }
    expect(digests.size).toBe(1);
    const other = await convert(`${host}/app:v1`, `oci:${scratch.join('other')}`, { build: { compressor: 'none' } });
    expect(digests.has(other.digest)).toBe(false);
  });

  test('has the media types of the family of its source', async () => {
    const docker = makeImage([{ tar: tars[0] as Buffer }], { docker: true });
    await putImage(`${host}/docker:v1`, docker);
    const [plain, oci] = [`${host}/docker:nydus`, `${host}/docker:oci`];
    await convert(`${host}/docker:v1`, plain);
    await convert(`${host}/docker:v1`, oci, { oci: true });
    const types: (string | undefined)[][] = [];
    for (const place of [plain, oci]) {
      await using source = await openImageSource(place);
      const { manifest } = await source.root();
      if (manifest.kind === 'image')
        types.push([manifest.mediaType, manifest.config.mediaType, manifest.layers[1]?.mediaType]);
    }
    expect(types).toEqual([
      [
        MEDIA_TYPES.dockerManifest,
        'application/vnd.docker.container.image.v1+json',
        'application/vnd.docker.image.rootfs.diff.tar.gzip',
      ],
      [
        MEDIA_TYPES.ociManifest,
        'application/vnd.oci.image.config.v1+json',
        'application/vnd.oci.image.layer.v1.tar+gzip',
      ],
    ]);
  });

  test('tells how far each layer is', async () => {
    const events: ConversionEvent[] = [];
    await convert(`${host}/app:v1`, `${host}/app:progress`, { progress: (event) => events.push(event) });
    const done = events.filter((event) => event.kind === 'layer-done');
    expect(done.map(({ layer }) => layer.index).toSorted((a, b) => a - b)).toEqual([0, 1, 2]);
    for (const { layer } of done) {
      const last = events.findLast((event) => event.kind === 'layer' && event.layer.digest === layer.digest);
      expect(last).toMatchObject({ read: layer.size });
    }
    // Blobs were there already: the same image was converted before.
    expect(events.filter((event) => event.kind === 'blob' && event.outcome === 'uploaded')).toEqual([]);
  });

  test('of empty, equal and many layers has each blob once', async () => {
    const empty = await tarOf([]);
    const same = await tarOf([file('same', text(10_000, 'same'))]);
    const many = await Promise.all(
      Array.from({ length: 124 }, (_, index) => tarOf([file(`many/${index}`, text(2000, `${index} `))])),
    );
    const made = makeImage([empty, same, same, ...many].map((tar) => ({ tar })));
    await putImage(`${host}/many:v1`, made);
    const report = await convert(`${host}/many:v1`, `${host}/many:nydus`, { concurrency: 4, build: { workers: 1 } });
    expect(report.images[0]).toMatchObject({ layers: 127 });
    expect(report.images[0]?.blobs).toHaveLength(125);
    await using source = await openImageSource(`${host}/many:nydus`);
    const nydus = await openNydusImage(source);
    const layers = nydus.config.history.filter((step) => !JSON.stringify(step).includes('empty_layer'));
    expect(layers).toHaveLength(nydus.config.diffIds.length);
    const nothing = makeImage([]);
    await putImage(`${host}/nothing:v1`, nothing);
    const { images } = await convert(`${host}/nothing:v1`, `${host}/nothing:nydus`);
    expect(images[0]).toMatchObject({ layers: 0, blobs: [] });
  }, 120_000);

  test('names what is to be fetched first', async () => {
    await convert(`${host}/app:v1`, `${host}/app:prefetch`, {
      prefetch: { policy: 'fs', patterns: ['/etc/kept', '/opaque'] },
    });
    await using source = await openImageSource(`${host}/app:prefetch`);
    const { image: found } = await openNydusImage(source);
    expect(found.prefetch.map(({ kind }) => kind)).toEqual(['regular', 'directory']);
  });
});

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
    // Built in another way it is another layer.
    await using cache = await BuildCache.open(`${host}/cache/app:v1`);
    const events: ConversionEvent[] = [];
    await convert(`${host}/app:v1`, `${host}/cached/four:v1`, {
      cache,
      build: { chunkSize: 65_536 },
      progress: (event) => events.push(event),
    });
    expect(events.some((event) => event.kind === 'layer-done' && event.cached)).toBe(false);
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

describe('what cannot be converted', () => {
  test.each([
    ['foreign', 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', 'failed-precondition', /hands out/],
    ['chart', 'application/vnd.cncf.helm.chart.content.v1.tar+gzip', 'unimplemented', /no tar/],
  ])('%s layers', async (name, mediaType, code, message) => {
    await putImage(`oci:${scratch.join(name)}`, makeImage([{ tar: await tarOf([]), mediaType }]));
    const converted = convert(`oci:${scratch.join(name)}`, `${host}/none:${name}`);
    await expect(converted).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  test.each([['leaves', [file('../x', '')], /"\.\.\/x" whose name leaves the root/]])(
    'a tar whose member %s its place',
    async (name, entries, message) => {
      const tar = await tarOf(entries as Entry[]);
      await putImage(`oci:${scratch.join(name)}`, makeImage([{ tar }]));
      const converted = convert(`oci:${scratch.join(name)}`, `${host}/none:${name}`);
      await expect(converted).rejects.toThrow(message);
      await expect(convert(`oci:${scratch.join(name)}`, `${host}/none:${name}`)).rejects.toThrow(
        /layer sha256:[0-9a-f]{64} of/,
      );
    },
  );

  test('hard links to what is in no layer', async () => {
    const place = `oci:${scratch.join('missing')}`;
    await putImage(place, makeImage([{ tar: await tarOf([file('c', 'c')]) }, { tar: await tarOf([link('a', 'b')]) }]));
    await expect(convert(place, `${host}/none:missing`)).rejects.toMatchObject({
      code: 'invalid-argument',
      message: expect.stringMatching(/^the layers of .*missing.*: "a" is a hard link to "b", which is no file/),
    });
  });

  test('a layer that is cut off, and a Nydus image', async () => {
    const tar = (tars[0] as Buffer).subarray(0, 3000);
    await putImage(`oci:${scratch.join('cut')}`, makeImage([{ tar }]));
    await expect(convert(`oci:${scratch.join('cut')}`, `${host}/none:cut`)).rejects.toMatchObject({
      code: 'data-loss',
    });
    await convert(`${host}/app:v1`, `${host}/app:nydus`);
    await expect(convert(`${host}/app:nydus`, `${host}/none:twice`)).rejects.toThrow('is a Nydus image already');
    await using source = await openImageSource(`${host}/app:v1`);
    await expect(openNydusImage(source)).rejects.toThrow('no Nydus image');
  });

  test('an aborted conversion ends and leaves nothing behind', async () => {
    const controller = new AbortController();
    const options = {
      signal: controller.signal,
      workFolder: scratch.path,
      progress: () => controller.abort(new DOMException('enough', 'AbortError')),
    };
    await expect(convert(`${host}/app:v1`, `oci:${scratch.join('aborted')}`, options)).rejects.toMatchObject({
      code: 'cancelled',
    });
    const { stdout } = await run('ls', [scratch.path]);
    expect(stdout).not.toContain('pantala-convert-');
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
