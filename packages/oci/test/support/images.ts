import { gzipSync } from 'node:zlib';
import { sha256Hex } from '@pantala/base';
import { type ImageTarget, MEDIA_TYPES, type TarMember, writeTar } from '@pantala/oci';

export const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar+gzip';
export const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json';

export function digestOf(bytes: Uint8Array): string {
  return `sha256:${sha256Hex(bytes)}`;
}

export async function tarOf(
  files: Readonly<Record<string, string | Buffer>>,
  links: Readonly<Record<string, string>> = {},
) {
  const common = { mode: 0o644, uid: 0, gid: 0, mtime: { seconds: 0, nanoseconds: 0 }, major: 0, minor: 0 };
  const members: TarMember[] = Object.entries(files).map(([path, content]) => {
    const bytes = Buffer.from(content);
    const header = { ...common, kind: 'regular', path, size: bytes.length, linkTarget: '', xattrs: new Map() } as const;
    return { header, content: () => [bytes] };
  });
  for (const [path, linkTarget] of Object.entries(links))
    members.push({ header: { ...common, kind: 'symlink', path, size: 0, linkTarget, xattrs: new Map() } });
  const parts: Buffer[] = [];
  for await (const part of writeTar(members)) parts.push(Buffer.from(part));
  return Buffer.concat(parts);
}

export interface TestImage {
  readonly digest: string;
  readonly bytes: Buffer;
  readonly layers: readonly { readonly digest: string; readonly bytes: Buffer; readonly tar: Buffer }[];
  readonly config: Buffer;
}

/** An image of gzip layers. */
export async function imageOf(
  architecture: string,
  layers: readonly Readonly<Record<string, string>>[],
): Promise<TestImage> {
  const made = await Promise.all(
    layers.map(async (files) => {
      const tar = await tarOf(files);
      const bytes = gzipSync(tar);
      return { digest: digestOf(bytes), bytes, tar };
    }),
  );
  const config = Buffer.from(
    JSON.stringify({
      architecture,
      os: 'linux',
      config: { Cmd: ['/bin/sh'] },
      rootfs: { type: 'layers', diff_ids: made.map(({ tar }) => digestOf(tar)) },
      history: made.map((_, index) => ({ created_by: `step ${index}` })),
    }),
  );
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.ociManifest,
      config: { mediaType: CONFIG_TYPE, digest: digestOf(config), size: config.length },
      layers: made.map((layer) => ({ mediaType: LAYER_TYPE, digest: layer.digest, size: layer.bytes.length })),
    }),
  );
  return { digest: digestOf(bytes), bytes, layers: made, config };
}

export function indexOf(images: readonly { readonly image: TestImage; readonly architecture: string }[]): Buffer {
  const manifests = images.map(({ image, architecture }) => ({
    mediaType: MEDIA_TYPES.ociManifest,
    digest: image.digest,
    size: image.bytes.length,
    platform: { architecture, os: 'linux' },
  }));
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests }));
}

/** Writes blobs, and the manifest unless it is to be the last thing. */
export async function putContent(target: ImageTarget, image: TestImage): Promise<void> {
  for (const bytes of [...image.layers.map((layer) => layer.bytes), image.config])
    await target.putBlob({ digest: digestOf(bytes), size: bytes.length, open: () => [bytes] });
}
