import { execFileSync } from 'node:child_process';
import { BuildCache, type ConversionEvent, NYDUS_BLOB, openNydusImage } from '@pantala/convert';
import { nydusBootstrap } from '@pantala/convert/nydus-bootstrap';
import { MEDIA_TYPES, openImageSource, parseImageConfig } from '@pantala/oci';
import { compareTrees, run, type Scratch } from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ConversionStage, convert, file, folder, LAYERS, link, text } from './lib/conversion.ts';
import { digestOf, type Entry, makeImage, putImage, tarOf, treeOf, unpackedByTar } from './lib/images.ts';

const byRoot = test.skipIf(process.getuid?.() !== 0);

let stage: ConversionStage;
let scratch: Scratch;
let host: string;
let tars: readonly Buffer[];

beforeAll(async () => {
  stage = await ConversionStage.start();
  ({ scratch, host, tars } = stage);
});

afterAll(() => stage[Symbol.asyncDispose]());

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
