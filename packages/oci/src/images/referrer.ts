import { PantalaError, sha256Hex } from '@pantala/base';
import { type Descriptor, type IndexEntry, MEDIA_TYPES, parseManifest } from '../manifest.ts';
import { refusal } from '../refusal.ts';
import type { Repository } from '../repository.ts';
import { descriptorDocument } from './layout-index.ts';

/**
 * Puts a manifest with a `subject`. Where the registry does not list referrers itself, it is added to the index under
 * the tag that stands for that list (distribution-spec, "Pushing Manifests with Subject").
 *
 * @throws what the registry refuses
 */
export async function putReferrer(
  repository: Repository,
  bytes: Buffer,
  mediaType: string,
  subject: Pick<Descriptor, 'digest'>,
  signal?: AbortSignal,
): Promise<void> {
  const digest = `sha256:${sha256Hex(bytes)}`;
  const response = await repository.registry.request({
    method: 'PUT',
    target: `/v2/${repository.name}/manifests/${digest}`,
    scope: repository.scope('pull,push'),
    headers: { 'content-type': mediaType, 'content-length': String(bytes.length) },
    body: () => [bytes],
    signal,
  });
  if (response.status !== 201 && response.status !== 202) throw await refusal(response, `manifest ${digest}`);
  await response[Symbol.asyncDispose]();
  if (response.headers['oci-subject'] !== undefined) return;
  const tag = subject.digest.replace(':', '-').slice(0, 128);
  const others = await listed(repository, tag, signal);
  const entry: IndexEntry = {
    mediaType,
    digest,
    size: bytes.length,
    artifactType: artifactTypeOf(bytes),
    annotations: new Map(),
    urls: [],
    platform: undefined,
  };
  const manifests = [...others.filter((other) => other.digest !== digest), entry].map(descriptorDocument);
  const index = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.ociIndex, manifests }));
  await repository.putManifest(tag, index, MEDIA_TYPES.ociIndex, signal);
}

async function listed(
  repository: Repository,
  tag: string,
  signal: AbortSignal | undefined,
): Promise<readonly IndexEntry[]> {
  try {
    const { manifest } = await repository.manifest(tag, signal);
    return manifest.kind === 'index' ? manifest.manifests : [];
  } catch (error) {
    if (PantalaError.from(error).code === 'not-found') return [];
    throw error;
  }
}

/** What a list of referrers says of an image: its artifact type, else that of its configuration. */
function artifactTypeOf(bytes: Buffer): string | undefined {
  const manifest = parseManifest(bytes);
  return manifest.artifactType ?? (manifest.kind === 'image' ? manifest.config.mediaType : undefined);
}
