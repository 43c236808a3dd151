import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { AbortScope, type Logger, PantalaError } from '@pantala/base';
import { nydusBootstrap } from '@pantala/convert/nydus-bootstrap';
import { dockerConfigCredentials, openImageSource, parsePlatformText, parseReference, registryUrl } from '@pantala/oci';
import { readNydusdConfig } from '../config/index.ts';
import type { MountOrder, NamedImage } from '../mounting/mount-order.ts';
import type { MountRequest, SourceSettings } from '../mounting/mount-request.ts';
import { registrySources } from '../sources/index.ts';

/** An order with everything that it names found. Disposing it removes what is only needed until it is mounted. */
export interface ResolvedOrder extends AsyncDisposable {
  readonly request: MountRequest;
  /** What is worth knowing of the configuration that was read. */
  readonly warnings: readonly string[];
}

export interface ResolutionParts {
  readonly logger: Logger;
  readonly signal: AbortSignal;
  /** Whether some of a blob lies here. */
  readonly isCached: (blobId: string) => boolean;
}

/** Blobs that sources are told of beforehand: a peer asks others about each, and no program reads them all at once. */
const MAX_PREPARED = 16;
/** Milliseconds that sources have to prepare: then readers are there themselves. */
const PREPARATION_LIMIT = 10_000;

/** @throws as `readNydusdConfig`, `nydusBootstrap`; `failed-precondition` for a configuration without a back end */
export async function resolveOrder(order: MountOrder, parts: ResolutionParts): Promise<ResolvedOrder> {
  if ('image' in order) return ofImage(order, parts);
  if ('config' in order) return ofConfig(order);
  return { request: order, warnings: [], async [Symbol.asyncDispose]() {} };
}

function ofConfig({ config: given, ...order }: Extract<MountOrder, { config: object }>): ResolvedOrder {
  const environment = given.pullAuth === undefined ? {} : { IMAGE_PULL_AUTH: given.pullAuth };
  const { config, warnings } = readNydusdConfig(given.path, environment);
  if (config.sources === undefined) throw new PantalaError('failed-precondition', `${given.path} names no back end`);
  const { enabled, lanes, bandwidth, all } = config.prefetch;
  const prefetch = { enabled, all, lanes: Math.max(1, lanes), ...(bandwidth === undefined ? {} : { bandwidth }) };
  return {
    request: {
      ...order,
      sources: config.sources,
      pieceLength: config.pieceLength,
      prefetch: { ...prefetch, ...order.prefetch },
    },
    warnings,
    async [Symbol.asyncDispose]() {},
  };
}

async function ofImage(
  { image, ...order }: Extract<MountOrder, { image: object }>,
  parts: ResolutionParts,
): Promise<ResolvedOrder> {
  const sources = sourcesOf(image);
  const bootstrap = await bootstrapOf(image, parts.signal, (ids) => {
    const lacking = ids.filter((id) => !parts.isCached(id));
    prepare(sources, image.credentials, lacking.slice(0, MAX_PREPARED), parts.logger).catch((error: unknown) => {
      parts.logger.debug('nothing is prepared for reads', { error });
    });
  });
  await using owned = new AsyncDisposableStack();
  try {
    const folder = await mkdtemp(join(tmpdir(), 'pantala-mount-'));
    owned.defer(() => rm(folder, { recursive: true, force: true }));
    const file = join(folder, 'image.boot');
    await writeFile(file, bootstrap, { mode: 0o600 });
    const kept = owned.move();
    return {
      request: { ...order, bootstrap: file, sources },
      warnings: [],
      [Symbol.asyncDispose]: () => kept.disposeAsync(),
    };
  } catch (error) {
    throw PantalaError.from(error);
  } finally {
    // A garbage collector hardly sees it, and a worker that rests would keep it for hours.
    bootstrap.buffer.transfer(0);
  }
}

type RegistrySettings = Extract<SourceSettings, { kind: 'registry' }>;

/** Has a peer find out about blobs while the bootstrap is on its way: the first reads would wait for it. */
async function prepare(
  { registry }: RegistrySettings,
  credentials: string,
  ids: readonly string[],
  logger: Logger,
): Promise<void> {
  await using chain = registrySources({ ...registry, credentials: dockerConfigCredentials(credentials) }, { logger });
  using scope = new AbortScope([], { timeout: PREPARATION_LIMIT, what: 'preparing for reads' });
  await Promise.all(ids.map((id) => chain.prepare(id, scope.signal)));
}

async function bootstrapOf(
  image: NamedImage,
  signal: AbortSignal,
  onBlobs: (ids: readonly string[]) => void,
): Promise<Buffer<ArrayBuffer>> {
  const { reference, platform, credentials, plainHttp = false, insecure = false } = image;
  await using source = await openImageSource(reference, {
    credentials: dockerConfigCredentials(credentials),
    plainHttp,
    insecure,
    signal,
  });
  const chosen = platform === undefined ? {} : { platform: parsePlatformText(platform) };
  return nydusBootstrap(source, { ...chosen, signal, onBlobs });
}

function sourcesOf({
  reference,
  credentials,
  plainHttp = false,
  insecure = false,
  peerSocket,
}: NamedImage): RegistrySettings {
  const { domain, path } = parseReference(reference);
  return {
    kind: 'registry',
    registry: {
      registry: registryUrl(domain, { plainHttp }).origin,
      repository: path,
      insecure,
      ...(peerSocket === undefined ? {} : { peerSocket }),
    },
    credentials: { kind: 'docker', path: credentials },
  };
}
