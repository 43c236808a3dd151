import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { convertImage, NYDUS_BLOB, openNydusImage, revertImage } from '@pantala/convert';
import { MEDIA_TYPES, openImageSource, openImageTarget } from '@pantala/oci';
import {
  type ComparisonOptions,
  compareTrees,
  loopbackPlace,
  Registry,
  readTreeFile,
  Scratch,
  type TreeFacts,
} from '@pantala/testkit';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FIXTURES } from './lib/build.ts';
import { digestOf, makeImage, putImage, tarOf, treeOf } from './lib/images.ts';

const byRoot = describe.skipIf(process.getuid?.() !== 0);
const source = (name: string) => readFileSync(join(FIXTURES, 'src', name));

/** Tars of the fixtures have whole seconds, and a root that no member describes has no time. */
const options: ComparisonOptions = { except: (path) => (path === '.' ? ['mtime', 'mode', 'nlink'] : []) };

function wholeSeconds(tree: TreeFacts): TreeFacts {
  return new Map(
    [...tree].map(([path, facts]) => [path, { ...facts, mtime: facts.mtime.replace(/\d{9}$/, '000000000') }]),
  );
}

byRoot('the layers and images of the real tools', () => {
  let scratch: Scratch;
  let registry: Registry;

  beforeAll(async () => {
    scratch = Scratch.create('nydus-tools');
    registry = await Registry.start({ place: loopbackPlace() });
  });

  afterAll(async () => {
    await registry[Symbol.asyncDispose]();
    await scratch[Symbol.asyncDispose]();
  });

  test('three layers with whiteouts become the tree that nydus-image makes of them', async () => {
    const place = `${registry.host}/layers`;
    const tars = ['layer1.tar', 'layer2.tar', 'layer3.tar'].map(source);
    await putImage(`${place}:oci`, makeImage(tars.map((tar) => ({ tar }))));
    {
      await using from = await openImageSource(`${place}:oci`);
      await using to = await openImageTarget(`${place}:nydus`);
      await convertImage(from, to);
    }
    await using nydus = await openImageSource(`${place}:nydus`);
    const found = await treeOf(nydus, scratch.join('merged'));
    const expected = readTreeFile(join(FIXTURES, 'src/layers-merged.expect.json'));
    expect(compareTrees(wholeSeconds(expected), wholeSeconds(found), options)).toEqual([]);
  });

  test('an image over an unmodified layer (ZRan) is found, read by ranges, and reverted', async () => {
    const folder = join(FIXTURES, 't-targz-ref');
    const bootstrap = readFileSync(join(folder, 'bootstrap'));
    // The larger one is the layer, the other one says where in it what begins.
    const blobs = readdirSync(join(folder, 'blobs')).map((name) => readFileSync(join(folder, 'blobs', name)));
    const [layer, meta] = blobs.toSorted((one, other) => other.length - one.length) as [Buffer, Buffer];
    const tar = await tarOf([
      { kind: 'directory', path: 'image' },
      { path: 'image/image.boot', content: bootstrap },
    ]);
    const rootfs = { type: 'layers', diff_ids: [] };
    const config = Buffer.from(JSON.stringify({ architecture: 'amd64', os: 'linux', rootfs }));
    const described = (bytes: Buffer, mediaType: string, annotations: object) => ({
      mediaType,
      digest: digestOf(bytes),
      size: bytes.length,
      annotations,
    });
    const manifest = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MEDIA_TYPES.ociManifest,
        config: described(config, 'application/vnd.oci.image.config.v1+json', {}),
        layers: [
          described(meta, NYDUS_BLOB, {
            'containerd.io/snapshot/nydus-blob': 'true',
            'containerd.io/snapshot/nydus-ref': digestOf(layer),
          }),
          described(tar, 'application/vnd.oci.image.layer.v1.tar', {
            'containerd.io/snapshot/nydus-bootstrap': 'true',
          }),
        ],
      }),
    );
    const place = `${registry.host}/zran`;
    {
      await using target = await openImageTarget(`${place}:nydus`);
      for (const bytes of [layer, tar, meta, config])
        await target.putBlob({ digest: digestOf(bytes), size: bytes.length, open: () => [bytes] });
      await target.finish({ bytes: manifest, mediaType: MEDIA_TYPES.ociManifest });
    }
    await using from = await openImageSource(`${place}:nydus`);
    const nydus = await openNydusImage(from);
    const found = await treeOf(from, scratch.join('zran'), nydus);
    const expected = readTreeFile(join(FIXTURES, 'src/mini.expect.json'));
    const present = new Map([...expected].filter(([path]) => found.has(path)));
    expect(expected.size - present.size).toBeLessThanOrEqual(8);
    // The real tool takes times before 1970 and after 2106 for 0, and splits some hard links.
    const except: ComparisonOptions['except'] = (path, facts) => [
      ...((path.startsWith('times/') ? ['mtime'] : []) as 'mtime'[]),
      ...(options.except?.(path, facts) ?? []),
      ...((facts.hl === undefined ? [] : ['nlink', 'hl']) as ('nlink' | 'hl')[]),
    ];
    expect(compareTrees(wholeSeconds(present), wholeSeconds(found), { except })).toEqual([]);
    {
      await using target = await openImageTarget(`${place}:back`);
      await revertImage(from, target);
      await using again = await openImageTarget(`${place}:again`);
      await using back = await openImageSource(`${place}:back`);
      await convertImage(back, again);
    }
    await using again = await openImageSource(`${place}:again`);
    expect(compareTrees(found, await treeOf(again, scratch.join('again')))).toEqual([]);
  });
});
