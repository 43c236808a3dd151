import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PantalaError } from '@pantala/base';
import type { CredentialSource } from '../credentials.ts';
import { parseReference, type Reference } from '../reference.ts';
import { Registry, registryUrl } from '../registry.ts';
import { type HttpTransport, NodeTransport } from '../transport.ts';
import { ArchiveFiles } from './archive-files.ts';
import { ArchiveTarget } from './archive-target.ts';
import { DOCKER_MANIFEST_FILE, DockerArchive } from './docker-archive.ts';
import { LayoutFolder, LayoutImage } from './layout-files.ts';
import { INDEX_FILE } from './layout-index.ts';
import { LayoutTarget } from './layout-target.ts';
import { RegistryImage } from './registry-image.ts';
import type { ImageSource, ImageTarget } from './source.ts';

/** Where an image lies or shall lie. */
export type ImageLocation =
  | { readonly kind: 'registry'; readonly reference: Reference }
  /** `name` says which image of the folder or file: a reference or a tag. */
  | { readonly kind: 'layout' | 'archive'; readonly path: string; readonly name: string | undefined };

export interface ImageAccess {
  readonly credentials?: CredentialSource;
  /** Plain HTTP; registries on loopback addresses have it without being told. Default false. */
  readonly plainHttp?: boolean;
  /** Accept any certificate. Default false. */
  readonly insecure?: boolean;
  /** Instead of node:http. Stays open. */
  readonly transport?: HttpTransport;
  readonly signal?: AbortSignal;
}

const PREFIX = /^(oci|oci-archive|docker-archive|docker):/;
const ARCHIVE_NAME = /\.(?:tar|tgz|tar\.(?:gz|zst))$/;

/**
 * What a user calls an image: `oci:FOLDER[:NAME]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]`,
 * `docker://REFERENCE`; without a prefix a path that begins with `/`, `./` or `../`, ends like a tar or is a folder
 * with an OCI layout; else a reference.
 *
 * @throws `invalid-argument`
 */
export async function locateImage(text: string): Promise<ImageLocation> {
  const prefix = PREFIX.exec(text)?.[1];
  const rest = prefix === undefined ? text : text.slice(prefix.length + 1);
  if (prefix === 'docker') return { kind: 'registry', reference: parseReference(rest.replace(/^\/\//, '')) };
  if (prefix === 'oci') return { kind: 'layout', ...splitPath(rest) };
  // `oci` and the others are no hosts, for they have no dot; a registry on such a host needs docker://.
  if (prefix !== undefined) return { kind: 'archive', ...splitPath(rest) };
  const split = splitPath(text);
  if (/^\.{0,2}\//.test(text) || ARCHIVE_NAME.test(split.path)) return { kind: await kindOfPath(split.path), ...split };
  const isLayout = await stat(join(split.path, INDEX_FILE)).then(
    (facts) => facts.isFile(),
    () => false,
  );
  return isLayout ? { kind: 'layout', ...split } : { kind: 'registry', reference: parseReference(text) };
}

function splitPath(text: string): { readonly path: string; readonly name: string | undefined } {
  const colon = text.indexOf(':');
  const path = colon < 0 ? text : text.slice(0, colon);
  const name = colon < 0 ? undefined : text.slice(colon + 1);
  if (path === '' || name === '') throw new PantalaError('invalid-argument', `"${text}" is not PATH[:NAME]`);
  return { path, name };
}

async function kindOfPath(path: string): Promise<'layout' | 'archive'> {
  const facts = await stat(path).catch(() => undefined);
  if (facts !== undefined) return facts.isDirectory() ? 'layout' : 'archive';
  return ARCHIVE_NAME.test(path) ? 'archive' : 'layout';
}

/** Opens what `locateImage` reads out of `text`. @throws as it, and what the place throws */
export async function openImageSource(text: string, access: ImageAccess = {}): Promise<ImageSource> {
  const location = await locateImage(text);
  if (location.kind === 'registry') return registryImage(location.reference, access);
  const { path, name } = location;
  if (location.kind === 'layout') {
    const files = new LayoutFolder(path);
    if ((await files.find(INDEX_FILE)) === undefined)
      throw new PantalaError('not-found', `${path} has no ${INDEX_FILE}: it is no OCI layout`);
    return new LayoutImage(files, name);
  }
  const files = await ArchiveFiles.open(path, access.signal);
  try {
    if ((await files.find(INDEX_FILE)) !== undefined) return new LayoutImage(files, name);
    if ((await files.find(DOCKER_MANIFEST_FILE)) !== undefined) return new DockerArchive(files, name);
    throw new PantalaError(
      'invalid-argument',
      `${path} has neither ${INDEX_FILE} nor ${DOCKER_MANIFEST_FILE}: it is no archive of an image`,
    );
  } catch (error) {
    await files[Symbol.asyncDispose]();
    throw error;
  }
}

/** Opens a place to write to. @throws as `openImageSource` */
export async function openImageTarget(text: string, access: ImageAccess = {}): Promise<ImageTarget> {
  const location = await locateImage(text);
  if (location.kind === 'registry') {
    if (location.reference.digest !== undefined)
      throw new PantalaError('invalid-argument', `${text} names a digest; an image is written under a tag`);
    return registryImage(location.reference, access);
  }
  const { path, name } = location;
  return location.kind === 'layout' ? new LayoutTarget(path, name) : ArchiveTarget.create(path, name);
}

function registryImage(reference: Reference, access: ImageAccess): RegistryImage {
  const { credentials, insecure = false, plainHttp = false, transport } = access;
  const own = transport === undefined ? new NodeTransport({ insecure }) : undefined;
  const url = registryUrl(reference.domain, { plainHttp });
  const registry = new Registry(url, {
    transport: transport ?? (own as NodeTransport),
    ...(credentials === undefined ? {} : { credentials }),
  });
  return new RegistryImage(registry.repository(reference.path), reference, own);
}
