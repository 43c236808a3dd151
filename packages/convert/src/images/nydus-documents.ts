import { sha256Hex } from '@pantala/base';
import { type Descriptor, descriptorDocument, type FetchedManifest, type ImageConfig, MEDIA_TYPES } from '@pantala/oci';
import { ANNOTATIONS, NYDUS_BLOB, NYDUS_CONFIG } from './nydus-manifest.ts';
import type { PackedFile } from './packed-file.ts';
import type { NewBlob } from './progress.ts';

/** Which media types manifests, configurations and bootstrap layers have. */
export type ManifestFamily = 'oci' | 'docker';

const TYPES = {
  oci: {
    manifest: MEDIA_TYPES.ociManifest,
    index: MEDIA_TYPES.ociIndex,
    config: 'application/vnd.oci.image.config.v1+json',
    layer: 'application/vnd.oci.image.layer.v1.tar',
    compression: { gzip: '+gzip', zstd: '+zstd', none: '' },
  },
  docker: {
    manifest: MEDIA_TYPES.dockerManifest,
    index: MEDIA_TYPES.dockerList,
    config: 'application/vnd.docker.container.image.v1+json',
    layer: 'application/vnd.docker.image.rootfs.diff.tar',
    compression: { gzip: '.gzip', zstd: '.zstd', none: '' },
  },
} as const;

export function typesOf(family: ManifestFamily): (typeof TYPES)[ManifestFamily] {
  return TYPES[family];
}

export interface NydusDocuments {
  readonly config: Buffer;
  readonly manifest: Buffer;
  readonly mediaType: string;
}

/** One layer of the source: whether its blob is a layer of the Nydus image. */
export interface SourceStep {
  readonly blob: NewBlob | undefined;
}

/**
 * Configuration and manifest of a Nydus image: the source's, with blobs in the place of layers and the bootstrap as
 * the last one.
 */
export function nydusDocuments(given: {
  readonly source: FetchedManifest;
  readonly config: ImageConfig;
  readonly family: ManifestFamily;
  /** Layers of the source in order; one whose blob came before, or that has none, is no layer of the result. */
  readonly steps: readonly SourceStep[];
  /** Blobs of a chunk dictionary that are needed besides. */
  readonly dictionaryBlobs: readonly NewBlob[];
  readonly bootstrap: PackedFile;
  /** Stands beside its source in one index. */
  readonly merged: boolean;
  readonly subject: Descriptor | undefined;
}): NydusDocuments {
  const { source, config, bootstrap, subject } = given;
  const types = typesOf(given.family);
  const own = given.steps.flatMap(({ blob }) => (blob === undefined ? [] : [blob]));
  const blobs = [...own, ...given.dictionaryBlobs];
  const document = Buffer.from(
    JSON.stringify({
      ...config.document,
      rootfs: { type: 'layers', diff_ids: [...blobs.map(({ digest }) => digest), bootstrap.diffId] },
      history: [
        ...rewrittenHistory(config.history, given.steps),
        ...given.dictionaryBlobs.map(() => ({ created_by: 'Nydus Converter', comment: 'Nydus Chunk Dictionary' })),
        { created_by: 'Nydus Converter', comment: 'Nydus Bootstrap Layer' },
      ],
    }),
  );
  const annotations = new Map(source.manifest.annotations);
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: types.manifest,
      config: describe(document, given.merged ? NYDUS_CONFIG : types.config),
      layers: [
        ...blobs.map(({ digest, size }) => ({
          mediaType: NYDUS_BLOB,
          digest,
          size,
          annotations: { [ANNOTATIONS.blob]: 'true' },
        })),
        {
          mediaType: `${types.layer}${types.compression.gzip}`,
          digest: bootstrap.digest,
          size: bootstrap.size,
          annotations: {
            [ANNOTATIONS.bootstrap]: 'true',
            [ANNOTATIONS.fsVersion]: '6',
            [ANNOTATIONS.referencedBlobs]: JSON.stringify(blobs.map(({ digest }) => digest.slice('sha256:'.length))),
          },
        },
      ],
      ...(subject === undefined ? {} : { subject: descriptorDocument(subject) }),
      ...(annotations.size === 0 ? {} : { annotations: Object.fromEntries(annotations) }),
    }),
  );
  return { config: document, manifest, mediaType: types.manifest };
}

/** A step whose layer is gone made none: so there are as many steps with a layer as layers. */
function rewrittenHistory(history: readonly unknown[], steps: readonly SourceStep[]): readonly unknown[] {
  const withLayer = history.filter((step) => !isEmptyLayer(step));
  if (withLayer.length !== steps.length) return history;
  let next = 0;
  return history.map((step) => {
    if (isEmptyLayer(step)) return step;
    return steps[next++]?.blob === undefined ? { ...(step as object), empty_layer: true } : step;
  });
}

export function isEmptyLayer(step: unknown): boolean {
  return typeof step === 'object' && step !== null && 'empty_layer' in step && step.empty_layer === true;
}

function describe(bytes: Buffer, mediaType: string): { mediaType: string; digest: string; size: number } {
  return { mediaType, digest: `sha256:${sha256Hex(bytes)}`, size: bytes.length };
}
