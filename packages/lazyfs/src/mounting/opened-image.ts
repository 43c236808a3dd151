import { readFile } from 'node:fs/promises';
import { type CredentialSource, dockerConfigCredentials } from '@pantala/oci';
import { decodeBootstrap } from '@pantala/rafs';
import { type BlobCache, type BlobHandle, layoutsOf } from '../cache/index.ts';
import { localSources, registrySources, type SourceChain, type SourceParts } from '../sources/index.ts';
import type { SourceSettings } from './mount-request.ts';

/** An image whose blobs can be filled. Disposing it gives them back. */
export interface OpenedImage extends AsyncDisposable {
  /** In the order of the image's device table. */
  readonly blobs: readonly BlobHandle[];
  readonly sources: SourceChain;
}

/**
 * Opens the blobs of an image.
 *
 * @param bootstrap file with a RAFS v6 bootstrap
 * @throws `data-loss` when it is none; `not-found`; as `BlobSource.read` where blobs have chunk information of their own
 */
export async function openImage(
  bootstrap: string,
  settings: SourceSettings,
  cache: BlobCache,
  parts: SourceParts & { readonly signal: AbortSignal },
): Promise<OpenedImage> {
  const image = decodeBootstrap(await readFile(bootstrap));
  await using opening = new AsyncDisposableStack();
  const sources = opening.use(sourcesOf(settings, parts));
  const options = { urgency: 'demand', signal: parts.signal } as const;
  const layouts = await layoutsOf(image, { directory: cache.directory, fetcher: sources }, options);
  const blobs: BlobHandle[] = [];
  for (const layout of layouts) blobs.push(opening.use(await cache.blob(layout, { fetcher: sources })));
  const opened = opening.move();
  return { blobs, sources, [Symbol.asyncDispose]: () => opened.disposeAsync() };
}

function sourcesOf(settings: SourceSettings, parts: SourceParts): SourceChain {
  if (settings.kind === 'local') return localSources(settings.local, parts);
  const { registry, credentials } = settings;
  if (credentials === undefined) return registrySources(registry, parts);
  const source: CredentialSource =
    credentials.kind === 'docker' ? dockerConfigCredentials(credentials.path) : async () => credentials;
  return registrySources({ ...registry, credentials: source }, parts);
}
