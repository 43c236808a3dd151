import { PantalaError } from '@pantala/base';
import { isDigest } from './reference.ts';

/** Bytes of a manifest or index: registries take no more (distribution-spec: at least 4 MiB). */
export const MAX_MANIFEST_BYTES = 4 * 1024 * 1024;
/** Layers of one image. overlayfs takes 500, Docker builds 127; artifacts have some more. */
export const MAX_LAYERS = 4096;
/** Manifests of one index. */
export const MAX_INDEX_ENTRIES = 4096;
/** Annotations of one object. */
const MAX_ANNOTATIONS = 4096;

export const MEDIA_TYPES = {
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  dockerSchema1: 'application/vnd.docker.distribution.manifest.v1+json',
  dockerSchema1Signed: 'application/vnd.docker.distribution.manifest.v1+prettyjws',
} as const;

/** What a client of ours understands, for `Accept`. */
export const MANIFEST_ACCEPT: string = [
  MEDIA_TYPES.ociIndex,
  MEDIA_TYPES.ociManifest,
  MEDIA_TYPES.dockerList,
  MEDIA_TYPES.dockerManifest,
].join(', ');

const IMAGE_TYPES: ReadonlySet<string> = new Set([MEDIA_TYPES.ociManifest, MEDIA_TYPES.dockerManifest]);
const INDEX_TYPES: ReadonlySet<string> = new Set([MEDIA_TYPES.ociIndex, MEDIA_TYPES.dockerList]);

/** Points to content (https://github.com/opencontainers/image-spec/blob/main/descriptor.md). */
export interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  /** Bytes. */
  readonly size: number;
  readonly artifactType: string | undefined;
  readonly annotations: ReadonlyMap<string, string>;
  readonly urls: readonly string[];
}

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant?: string;
  readonly osVersion?: string;
  readonly osFeatures?: readonly string[];
}

export interface IndexEntry extends Descriptor {
  readonly platform: Platform | undefined;
}

export interface ImageManifest {
  readonly kind: 'image';
  readonly mediaType: string;
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly artifactType: string | undefined;
  readonly subject: Descriptor | undefined;
  readonly annotations: ReadonlyMap<string, string>;
}

export interface ImageIndex {
  readonly kind: 'index';
  readonly mediaType: string;
  readonly manifests: readonly IndexEntry[];
  readonly artifactType: string | undefined;
  readonly subject: Descriptor | undefined;
  readonly annotations: ReadonlyMap<string, string>;
}

export type Manifest = ImageManifest | ImageIndex;

/**
 * Parses a manifest or index of either family.
 *
 * A document that says what it is must be that and nothing else: one that could be read both ways would be two
 * different images with one digest.
 *
 * @param mediaType `Content-Type` of the answer, where there was one
 * @throws `invalid-argument` naming the field that is wrong; `unimplemented` for Docker's schema 1
 */
export function parseManifest(bytes: Uint8Array, mediaType?: string): Manifest {
  if (bytes.length > MAX_MANIFEST_BYTES) throw wrong(`has ${bytes.length} bytes; at most ${MAX_MANIFEST_BYTES}`);
  const document = fields(parseJson(bytes), 'the document');
  const declared = optionalText(document, 'mediaType');
  const type = agreedType(declared, mediaType?.split(';')[0]?.trim().toLowerCase(), document);
  const common = {
    mediaType: type,
    artifactType: optionalText(document, 'artifactType'),
    subject: document.subject === undefined ? undefined : parseDescriptor(document.subject, 'subject'),
    annotations: parseAnnotations(document.annotations, 'annotations'),
  };
  if (INDEX_TYPES.has(type)) {
    const manifests = list(document.manifests, 'manifests', MAX_INDEX_ENTRIES);
    return {
      kind: 'index',
      ...common,
      manifests: manifests.map((entry, index) => parseEntry(entry, `manifests[${index}]`)),
    };
  }
  const layers = list(document.layers, 'layers', MAX_LAYERS);
  return {
    kind: 'image',
    ...common,
    config: parseDescriptor(document.config, 'config'),
    layers: layers.map((layer, index) => parseDescriptor(layer, `layers[${index}]`)),
  };
}

function agreedType(declared: string | undefined, sent: string | undefined, document: Fields): string {
  if (document.schemaVersion === 1 || sent?.startsWith('application/vnd.docker.distribution.manifest.v1') === true) {
    throw new PantalaError(
      'unimplemented',
      'this image has a manifest of schema 1, which registries gave up; push it anew',
    );
  }
  if (document.schemaVersion !== 2) throw wrong('lacks "schemaVersion": 2');
  const hasLayers = document.layers !== undefined || document.config !== undefined;
  const hasManifests = document.manifests !== undefined;
  if (hasLayers && hasManifests) throw wrong('has both layers and manifests: it could be read as two different images');
  const known = (type: string | undefined) => type !== undefined && (IMAGE_TYPES.has(type) || INDEX_TYPES.has(type));
  if (declared !== undefined && !known(declared)) throw wrong(`has the unknown media type "${declared.slice(0, 100)}"`);
  if (known(declared) && known(sent) && declared !== sent) throw wrong(`says ${declared} but was sent as ${sent}`);
  const guess = hasManifests ? MEDIA_TYPES.ociIndex : MEDIA_TYPES.ociManifest;
  const type = declared ?? (known(sent) ? (sent as string) : guess);
  if (INDEX_TYPES.has(type) !== hasManifests) throw wrong(`says ${type} but has ${hasManifests ? '' : 'no '}manifests`);
  return type;
}

function parseEntry(value: unknown, where: string): IndexEntry {
  const { platform } = fields(value, where);
  return {
    ...parseDescriptor(value, where),
    platform: platform === undefined ? undefined : parsePlatform(platform, where),
  };
}

function parsePlatform(value: unknown, where: string): Platform {
  const platform = fields(value, `${where}.platform`);
  const variant = optionalText(platform, 'variant');
  const osVersion = optionalText(platform, 'os.version');
  const features = platform['os.features'];
  return {
    os: optionalText(platform, 'os') ?? '',
    architecture: optionalText(platform, 'architecture') ?? '',
    ...(variant === undefined ? {} : { variant }),
    ...(osVersion === undefined ? {} : { osVersion }),
    ...(Array.isArray(features) ? { osFeatures: features.filter((feature) => typeof feature === 'string') } : {}),
  };
}

function parseDescriptor(value: unknown, where: string): Descriptor {
  const descriptor = fields(value, where);
  const { mediaType, digest, size, urls } = descriptor;
  if (typeof mediaType !== 'string' || mediaType === '') throw wrong(`${where} has no mediaType`);
  if (typeof digest !== 'string' || !isDigest(digest)) throw wrong(`${where}.digest is no digest`);
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw wrong(`${where}.size is no number of bytes`);
  return {
    mediaType,
    digest,
    size,
    artifactType: optionalText(descriptor, 'artifactType'),
    annotations: parseAnnotations(descriptor.annotations, `${where}.annotations`),
    urls: Array.isArray(urls) ? urls.filter((url) => typeof url === 'string') : [],
  };
}

function parseAnnotations(value: unknown, where: string): ReadonlyMap<string, string> {
  if (value === undefined || value === null) return new Map();
  const entries = Object.entries(fields(value, where));
  if (entries.length > MAX_ANNOTATIONS) throw wrong(`${where} has more than ${MAX_ANNOTATIONS} entries`);
  return new Map(entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string'));
}

type Fields = Readonly<Record<string, unknown>>;

/** Own properties only: a key `__proto__` in the document is a key like any other and is never assigned. */
function fields(value: unknown, where: string): Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw wrong(`${where} is no object`);
  return Object.setPrototypeOf(value, null) as Fields;
}

function list(value: unknown, where: string, limit: number): unknown[] {
  if (!Array.isArray(value)) throw wrong(`${where} is no list`);
  if (value.length > limit) throw wrong(`${where} has ${value.length} entries; at most ${limit}`);
  return value;
}

function optionalText(from: Fields, name: string): string | undefined {
  const value = from[name];
  if (value === undefined || value === null || value === '') return undefined;
  if (typeof value !== 'string') throw wrong(`${name} is no text`);
  return value;
}

function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw new PantalaError('invalid-argument', 'the manifest is no JSON', { cause: error });
  }
}

function wrong(what: string): PantalaError {
  return new PantalaError('invalid-argument', `the manifest ${what}`);
}
