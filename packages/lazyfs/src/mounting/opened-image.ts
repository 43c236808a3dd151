import { readFile } from 'node:fs/promises';
import { byteStringOf, TokenBucket } from '@pantala/base';
import { type CredentialSource, type Credentials, dockerConfigCredentials } from '@pantala/oci';
import { decodeBootstrap, type RafsImage, readBootstrap } from '@pantala/rafs';
import { MountAccounting } from '../accounting/index.ts';
import { type BlobAccess, type BlobCache, type BlobHandle, layoutsOf } from '../cache/index.ts';
import { type PrefetchPlan, planPrefetch } from '../prefetch/index.ts';
import { localSources, registrySources, type SourceChain, type SourceParts } from '../sources/index.ts';
import { type BootstrapBytes, readBootstrapFile } from './bootstrap-bytes.ts';
import type { MountRequest, SourceSettings } from './mount-request.ts';

/** An image whose blobs can be filled. Disposing it gives them back. */
export interface OpenedImage extends AsyncDisposable {
  /** In the order of the image's device table. */
  readonly blobs: readonly BlobHandle[];
  readonly sources: SourceChain;
  /** What is fetched before it is read, in order. */
  readonly plan: PrefetchPlan;
  /** What readers asked for. */
  readonly accounting: MountAccounting;
  /** From here on these are shown to the registry, in place of the mount's. */
  setCredentials(credentials: Credentials): void;
  /** Reads the image's bootstrap again: nobody keeps it, for it is larger than everything else of a mount. */
  tree(): Promise<RafsImage>;
}

/**
 * Opens the blobs of an image.
 *
 * @param bootstrap file with a RAFS v6 bootstrap
 * @param parts.credentials in place of the request's
 * @param bytes what is in it, where it is known; they are given back
 * @throws `data-loss` when it is none; `not-found`; as `BlobSource.read` where blobs have chunk information of their own
 */
export async function openImage(
  bootstrap: string,
  request: Pick<MountRequest, 'sources' | 'prefetch' | 'pieceLength' | 'accounting'>,
  cache: BlobCache,
  { credentials, ...parts }: SourceParts & { readonly signal: AbortSignal; readonly credentials?: Credentials },
  bytes?: BootstrapBytes,
): Promise<OpenedImage> {
  using content = bytes ?? (await readBootstrapFile(bootstrap));
  const checked = readBootstrap(content.bytes);
  const { image } = checked;
  await using opening = new AsyncDisposableStack();
  const shown: ShownCredentials = { replaced: credentials };
  const sources = opening.use(sourcesOf(request.sources, shown, parts));
  const accounting = new MountAccounting(image, request.accounting);
  const options = { urgency: 'demand', signal: parts.signal } as const;
  const layouts = await layoutsOf(checked, { directory: cache.directory, fetcher: sources }, options);
  const blobs: BlobHandle[] = [];
  const { bandwidth, files = [] } = request.prefetch ?? {};
  const access: BlobAccess = {
    fetcher: sources,
    onRead: accounting.read.bind(accounting),
    ...(request.pieceLength === undefined ? {} : { pieceLength: request.pieceLength }),
    ...(bandwidth === undefined ? {} : { prefetchLimiter: new TokenBucket({ rate: bandwidth }) }),
  };
  for (const layout of layouts) blobs.push(opening.use(await cache.blob(layout, access)));
  const plan = planPrefetch(
    image,
    files.map((file) => byteStringOf(file)),
  );
  const opened = opening.move();
  return {
    blobs,
    sources,
    plan,
    accounting,
    tree: async () => decodeBootstrap(await readFile(bootstrap)),
    setCredentials: (credentials) => {
      shown.replaced = credentials;
    },
    [Symbol.asyncDispose]: () => opened.disposeAsync(),
  };
}

interface ShownCredentials {
  /** Given later than the mount's. */
  replaced: Credentials | undefined;
}

function sourcesOf(settings: SourceSettings, shown: ShownCredentials, parts: SourceParts): SourceChain {
  if (settings.kind === 'local') return localSources(settings.local, parts);
  const { registry, credentials: own } = settings;
  const docker = own?.kind === 'docker' ? dockerConfigCredentials(own.path) : undefined;
  const credentials: CredentialSource = async (host) => {
    if (shown.replaced !== undefined) return shown.replaced;
    return own?.kind === 'docker' ? docker?.(host) : own;
  };
  return registrySources({ ...registry, credentials }, parts);
}
