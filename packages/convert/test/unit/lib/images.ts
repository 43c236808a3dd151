import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { sha256Hex } from '@pantala/base';
import {
  type ImageSource,
  type ImageTarget,
  MEDIA_TYPES,
  openImageTarget,
  type TarEntryKind,
  type TarHeader,
  type TarMember,
  writeTar,
} from '@pantala/oci';
import { readTree, run, type TreeFacts } from '@pantala/testkit';
import {
  FileContent,
  ImageBlobs,
  type NydusImage,
  NydusImageBlobs,
  openNydusImage,
  unpackDirectory,
} from '../../../src/index.ts';

export type Entry = Partial<Omit<TarHeader, 'kind' | 'path' | 'size'>> & {
  readonly kind?: TarEntryKind;
  readonly path: string;
  readonly content?: string | Buffer;
};

export function digestOf(bytes: Uint8Array): string {
  return `sha256:${sha256Hex(bytes)}`;
}

export async function tarOf(entries: readonly Entry[]): Promise<Buffer> {
  const members = entries.map(({ content = '', ...given }): TarMember => {
    const bytes = Buffer.from(content);
    const header: TarHeader = {
      kind: 'regular',
      mode: given.kind === 'directory' ? 0o755 : 0o644,
      uid: 0,
      gid: 0,
      mtime: { seconds: 1_600_000_000, nanoseconds: 0 },
      linkTarget: '',
      major: 0,
      minor: 0,
      xattrs: new Map(),
      ...given,
      size: bytes.length,
    };
    return { header, content: () => [bytes] };
  });
  const parts: Buffer[] = [];
  for await (const part of writeTar(members)) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

export type Compression = 'gzip' | 'zstd' | 'none';

export interface LayerSpec {
  readonly tar: Buffer;
  readonly compression?: Compression;
  readonly mediaType?: string;
}

export interface MadeImage {
  readonly digest: string;
  readonly manifest: Buffer;
  readonly mediaType: string;
  readonly layers: readonly { readonly digest: string; readonly bytes: Buffer }[];
  readonly config: Buffer;
}

const OCI = {
  manifest: MEDIA_TYPES.ociManifest,
  config: 'application/vnd.oci.image.config.v1+json',
  layer: 'application/vnd.oci.image.layer.v1.tar',
  suffix: { gzip: '+gzip', zstd: '+zstd', none: '' },
};
const DOCKER = {
  manifest: MEDIA_TYPES.dockerManifest,
  config: 'application/vnd.docker.container.image.v1+json',
  layer: 'application/vnd.docker.image.rootfs.diff.tar',
  suffix: { gzip: '.gzip', zstd: '.zstd', none: '' },
};

export function makeImage(
  specs: readonly LayerSpec[],
  options: { readonly architecture?: string; readonly docker?: boolean; readonly annotations?: object } = {},
): MadeImage {
  const types = options.docker === true ? DOCKER : OCI;
  const layers = specs.map(({ tar, compression = 'gzip', mediaType }) => {
    const bytes = compression === 'gzip' ? gzipSync(tar) : compression === 'zstd' ? zstdCompressSync(tar) : tar;
    return { bytes, digest: digestOf(bytes), mediaType: mediaType ?? `${types.layer}${types.suffix[compression]}` };
  });
  const config = Buffer.from(
    JSON.stringify({
      architecture: options.architecture ?? 'amd64',
      os: 'linux',
      config: { Cmd: ['/bin/sh'], Env: ['A=b'] },
      rootfs: { type: 'layers', diff_ids: specs.map(({ tar }) => digestOf(tar)) },
      history: [
        { created_by: 'FROM scratch', empty_layer: true },
        ...specs.map((_, index) => ({ created_by: `COPY ${index}` })),
      ],
    }),
  );
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: types.manifest,
      config: { mediaType: types.config, digest: digestOf(config), size: config.length },
      layers: layers.map(({ bytes, digest, mediaType }) => ({ mediaType, digest, size: bytes.length })),
      ...(options.annotations === undefined ? {} : { annotations: options.annotations }),
    }),
  );
  return { digest: digestOf(manifest), manifest, mediaType: types.manifest, layers, config };
}

async function putContent(target: ImageTarget, image: MadeImage): Promise<void> {
  for (const bytes of [...image.layers.map((layer) => layer.bytes), image.config])
    await target.putBlob({ digest: digestOf(bytes), size: bytes.length, open: () => [bytes] });
}

export async function putImage(place: string, image: MadeImage): Promise<void> {
  await using target = await openImageTarget(place);
  await putContent(target, image);
  await target.finish({ bytes: image.manifest, mediaType: image.mediaType });
}

export async function putIndex(
  place: string,
  images: readonly { readonly image: MadeImage; readonly architecture: string }[],
): Promise<void> {
  await using target = await openImageTarget(place);
  for (const { image } of images) {
    await putContent(target, image);
    await target.putManifest(image.manifest, image.mediaType);
  }
  const manifests = images.map(({ image, architecture }) => ({
    mediaType: image.mediaType,
    digest: image.digest,
    size: image.manifest.length,
    platform: { architecture, os: 'linux' },
  }));
  const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests }));
  await target.finish({ bytes, mediaType: MEDIA_TYPES.ociIndex });
}

/** What a Nydus image shows, written out. */
export async function treeOf(source: ImageSource, folder: string, given?: NydusImage): Promise<TreeFacts> {
  const nydus = given ?? (await openNydusImage(source));
  await using blobs = new NydusImageBlobs(nydus);
  const content = new FileContent(new ImageBlobs(nydus.image, blobs));
  const { lost } = await unpackDirectory(nydus.image.root, folder, { content: (file) => content.read(file) });
  if (lost.length > 0) throw new Error(`lost: ${JSON.stringify(lost)}`);
  return readTree(folder);
}

/** Unpacks layers one over the other with GNU tar, and applies whiteouts by hand: another way to the same tree. */
export async function unpackedByTar(folder: string, tars: readonly Buffer[]): Promise<TreeFacts> {
  mkdirSync(folder);
  for (const tar of tars) {
    const path = `${folder}.layer.tar`;
    writeFileSync(path, tar);
    const { stdout } = await run('tar', ['tvf', path]);
    for (const line of stdout.split('\n').filter((each) => each !== '')) {
      const name = line.split(/\s+/)[5] as string;
      const cut = name.lastIndexOf('/') + 1;
      const [parent, base] = [join(folder, name.slice(0, cut)), name.slice(cut)];
      if (base === '.wh..wh..opq') {
        for (const each of readdirSync(parent)) rmSync(join(parent, each), { recursive: true });
      } else if (base.startsWith('.wh.')) rmSync(join(parent, base.slice(4)), { recursive: true, force: true });
      else if (!line.startsWith('d')) rmSync(join(folder, name), { recursive: true, force: true });
    }
    const rights = ['--xattrs', '--xattrs-include=*', '--numeric-owner', '--same-owner', '-p', '--overwrite'];
    await run('tar', ['-C', folder, ...rights, '--exclude=.wh.*', '-xf', path]);
    rmSync(path);
  }
  return readTree(folder);
}
