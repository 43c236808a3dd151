import { createHash } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync } from 'node:zlib';

export type LayerForm = 'tar' | 'gzip' | 'zstd';

export interface PlatformLayers {
  /** Default: linux/amd64. */
  readonly architecture?: string;
  /** Tars, the lowest first. */
  readonly layers: readonly { readonly tar: Buffer; readonly form: LayerForm }[];
}

const LAYER_TYPES: Readonly<Record<LayerForm, string>> = {
  tar: 'application/vnd.oci.image.layer.v1.tar',
  gzip: 'application/vnd.oci.image.layer.v1.tar+gzip',
  zstd: 'application/vnd.oci.image.layer.v1.tar+zstd',
};

interface Description {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

/** Writes an OCI layout with one image, or with an index of several, under the name `latest`. */
export function writeLayout(folder: string, images: readonly PlatformLayers[]): void {
  mkdirSync(join(folder, 'blobs', 'sha256'), { recursive: true });
  const put = (bytes: Buffer, mediaType: string): Description => {
    const hex = sha256(bytes);
    writeFileSync(join(folder, 'blobs', 'sha256', hex), bytes);
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length };
  };
  const putJson = (document: object, mediaType: string): Description =>
    put(Buffer.from(JSON.stringify(document)), mediaType);
  const manifests = images.map(({ architecture = 'amd64', layers }) => {
    const config = putJson(
      {
        architecture,
        os: 'linux',
        config: { Cmd: ['/bin/true'] },
        rootfs: { type: 'layers', diff_ids: layers.map(({ tar }) => `sha256:${sha256(tar)}`) },
        history: layers.map((_, index) => ({ created_by: `step ${index}` })),
      },
      'application/vnd.oci.image.config.v1+json',
    );
    const mediaType = 'application/vnd.oci.image.manifest.v1+json';
    const stored = layers.map(({ tar, form }) => put(compressed(tar, form), LAYER_TYPES[form]));
    const manifest = putJson({ schemaVersion: 2, mediaType, config, layers: stored }, mediaType);
    return { ...manifest, platform: { os: 'linux', architecture } };
  });
  const indexType = 'application/vnd.oci.image.index.v1+json';
  const root =
    manifests.length === 1 ? manifests[0] : putJson({ schemaVersion: 2, mediaType: indexType, manifests }, indexType);
  const annotations = { 'org.opencontainers.image.ref.name': 'latest' };
  writeFileSync(join(folder, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  writeFileSync(
    join(folder, 'index.json'),
    JSON.stringify({ schemaVersion: 2, mediaType: indexType, manifests: [{ ...root, annotations }] }),
  );
}

/** The tar in a layer of any form. */
export function plainTar(bytes: Buffer): Buffer {
  if (bytes.readUInt16BE() === 0x1f8b) return gunzipSync(bytes);
  return bytes.readUInt32BE() === 0x28b52ffd ? zstdDecompressSync(bytes) : bytes;
}

function compressed(tar: Buffer, form: LayerForm): Buffer {
  if (form === 'gzip') return gzipSync(tar);
  return form === 'zstd' ? zstdCompressSync(tar) : tar;
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex');
}
