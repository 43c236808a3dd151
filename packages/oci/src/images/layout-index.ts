import { PantalaError } from '@pantala/base';
import {
  type Descriptor,
  type ImageIndex,
  type IndexEntry,
  MEDIA_TYPES,
  type Platform,
  parseManifest,
} from '../manifest.ts';

/** Annotations of the entries of a layout's index that say what they are called. */
const REF_NAME = 'org.opencontainers.image.ref.name';
const CONTAINERD_NAME = 'io.containerd.image.name';

export const LAYOUT_FILE = 'oci-layout';
export const INDEX_FILE = 'index.json';
export const LAYOUT_CONTENT: Buffer = Buffer.from('{"imageLayoutVersion":"1.0.0"}');

export function blobPath(digest: string): string {
  return `blobs/${digest.replace(':', '/')}`;
}

/** @throws `invalid-argument` */
export function parseLayoutIndex(bytes: Uint8Array, where: string): ImageIndex {
  const index = parseManifest(bytes, MEDIA_TYPES.ociIndex);
  if (index.kind !== 'index') throw new PantalaError('invalid-argument', `${INDEX_FILE} of ${where} is no index`);
  return index;
}

/**
 * The image of a layout that a name means: the whole reference, or its tag. Without a name it must be clear.
 *
 * @returns undefined when the layout's index itself is the image: nothing but platforms without names
 * @throws `not-found` telling what there is
 */
export function selectEntry(index: ImageIndex, name: string | undefined, where: string): IndexEntry | undefined {
  const { manifests } = index;
  const named = manifests.map((entry) => ({ entry, names: namesOf(entry) }));
  if (name === undefined) {
    if (manifests.length === 1) return manifests[0];
    if (manifests.length > 1 && named.every(({ entry, names }) => names.length === 0 && entry.platform !== undefined))
      return undefined;
  } else {
    const exact = named.find(({ names }) => names.includes(name));
    const byTag = named.filter(({ names }) => names.some((known) => tagOf(known) === name));
    const found = exact ?? (byTag.length === 1 ? byTag[0] : undefined);
    if (found !== undefined) return found.entry;
  }
  const known = named.flatMap(({ names }) => names.slice(0, 1)).slice(0, 20);
  throw new PantalaError(
    'not-found',
    `${where} has ${manifests.length} images, ${name === undefined ? 'say which' : `none of them "${name}"`}${known.length > 0 ? `: ${known.join(', ')}` : ''}`,
  );
}

function namesOf({ annotations }: Descriptor): string[] {
  return [annotations.get(CONTAINERD_NAME), annotations.get(REF_NAME)].filter((name) => name !== undefined);
}

function tagOf(name: string): string {
  return name.slice(name.lastIndexOf(':') + 1);
}

/** An index with an image in it under a name or without one, in the place of the one that was there before. */
export function withEntry(
  index: ImageIndex | undefined,
  image: { readonly mediaType: string; readonly digest: string; readonly size: number },
  name: string | undefined,
): Buffer {
  const others = (index?.manifests ?? []).filter((entry) =>
    name === undefined ? namesOf(entry).length > 0 : !namesOf(entry).includes(name),
  );
  const entry = { ...image, ...(name === undefined ? {} : { annotations: { [REF_NAME]: name } }) };
  const manifests = [...others.map(descriptorDocument), entry];
  return Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests }));
}

/** A descriptor as JSON has it. */
export function descriptorDocument(descriptor: Descriptor & { readonly platform?: Platform | undefined }): object {
  const { mediaType, digest, size, artifactType, annotations, urls, platform } = descriptor;
  return {
    mediaType,
    digest,
    size,
    ...(urls.length === 0 ? {} : { urls }),
    ...(annotations.size === 0 ? {} : { annotations: Object.fromEntries(annotations) }),
    ...(platform === undefined ? {} : { platform: platformDocument(platform) }),
    ...(artifactType === undefined ? {} : { artifactType }),
  };
}

export function platformDocument({ os, architecture, variant, osVersion, osFeatures }: Platform): object {
  return {
    architecture,
    os,
    ...(osVersion === undefined ? {} : { 'os.version': osVersion }),
    ...(osFeatures === undefined || osFeatures.length === 0 ? {} : { 'os.features': osFeatures }),
    ...(variant === undefined ? {} : { variant }),
  };
}
