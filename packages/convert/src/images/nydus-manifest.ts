import type { Descriptor, ImageIndex, ImageManifest, IndexEntry, Manifest } from '@pantala/oci';

/** Media types of Nydus images as containerd's snapshotter knows them (nydus-snapshotter, pkg/label and pkg/converter). */
export const NYDUS_BLOB = 'application/vnd.oci.image.layer.nydus.blob.v1';
/** Of images that stand in an index beside those that they were made from: others must not take them for theirs. */
export const NYDUS_CONFIG = 'application/vnd.nydus.image.config.v1+json';
/** `artifactType` by which newer readers find the Nydus image of an index. */
export const NYDUS_ARTIFACT = 'application/vnd.nydus.image.manifest.v1+json';
/** `os.features` by which older ones find it. */
export const NYDUS_FEATURE = 'nydus.remoteimage.v1';

const SNAPSHOT = 'containerd.io/snapshot';
/** Annotations of layers, and of the image that is a build cache. */
export const ANNOTATIONS = {
  blob: `${SNAPSHOT}/nydus-blob`,
  bootstrap: `${SNAPSHOT}/nydus-bootstrap`,
  fsVersion: `${SNAPSHOT}/nydus-fs-version`,
  /** Digest of the unmodified layer that has the data. */
  reference: `${SNAPSHOT}/nydus-ref`,
  referencedBlobs: `${SNAPSHOT}/nydus-reference-blob-ids`,
  sourceDigest: `${SNAPSHOT}/nydus-source-digest`,
  targetDigest: `${SNAPSHOT}/nydus-target-digest`,
  cache: `${SNAPSHOT}/nydus-cache`,
} as const;

/** What the tar of a bootstrap layer holds. */
export const BOOTSTRAP_FOLDER = 'image';
export const BOOTSTRAP_PATH = 'image/image.boot';
/** Where older builders put it. */
export const OLD_BOOTSTRAP_PATH = 'image.boot';

export function metaPath(blobId: string): string {
  return `${BOOTSTRAP_FOLDER}/${blobId}.blob.meta`;
}

/** The layer with the bootstrap, which is the last one; undefined when this is no Nydus image. */
export function bootstrapLayer(manifest: ImageManifest): Descriptor | undefined {
  const last = manifest.layers.at(-1);
  return last?.annotations.get(ANNOTATIONS.bootstrap) === 'true' ? last : undefined;
}

export function isNydusManifest(manifest: Manifest): boolean {
  return manifest.kind === 'image' && bootstrapLayer(manifest) !== undefined;
}

/** Whether an entry of an index says that it is a Nydus image, in the newer or the older way. */
export function isNydusEntry(entry: IndexEntry): boolean {
  return entry.artifactType === NYDUS_ARTIFACT || entry.platform?.osFeatures?.includes(NYDUS_FEATURE) === true;
}

/** An index with either its Nydus images only or without them. */
export function narrowed(index: ImageIndex, nydus: boolean): ImageIndex {
  return { ...index, manifests: index.manifests.filter((entry) => isNydusEntry(entry) === nydus) };
}
