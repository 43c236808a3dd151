import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { homedir, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { PantalaError, proxySocketOf } from '@pantala/base';
import type { MountRequest, SourceSettings } from '@pantala/lazyfs/client';
import { defaultEndpoint } from '../../endpoint.ts';
import { note } from '../../output.ts';
import type { AccessOptions } from '../image/access.ts';

export interface SourceOptions extends AccessOptions {
  readonly bootstrap?: string;
  readonly blobDir: readonly string[];
  readonly config?: string;
  readonly platform?: string;
  readonly endpoint?: string;
  /** False: the registry is asked without the peer of this machine. */
  readonly peer: boolean;
}

/** What an image needs to be mounted. Disposing it removes what is only needed until then. */
export interface MountSource extends AsyncDisposable {
  readonly request: Pick<MountRequest, 'bootstrap' | 'sources' | 'pieceLength' | 'prefetch'>;
}

/**
 * Finds bootstrap and blobs: of an image in a registry, or of files.
 *
 * @throws `invalid-argument` when it is not said where something is; `not-found`; as `nydusBootstrap`
 */
export async function mountSource(image: string | undefined, options: SourceOptions): Promise<MountSource> {
  if (image !== undefined) return ofImage(image, options);
  const { bootstrap, blobDir, config } = options;
  if (bootstrap === undefined)
    throw new PantalaError('invalid-argument', 'name an image, or --bootstrap and --blob-dir');
  if (config === undefined && blobDir.length === 0) {
    throw new PantalaError('invalid-argument', 'where are the blobs? Name their folder with --blob-dir, or --config');
  }
  const settings: Pick<MountRequest, 'sources' | 'pieceLength' | 'prefetch'> =
    config === undefined
      ? { sources: { kind: 'local', local: { directories: blobDir.map((each) => resolve(each)) } } }
      : await ofConfig(config);
  return { request: { bootstrap: resolve(bootstrap), ...settings }, async [Symbol.asyncDispose]() {} };
}

/** What a configuration file of nydusd says. */
async function ofConfig(path: string): Promise<Pick<MountRequest, 'sources' | 'pieceLength' | 'prefetch'>> {
  const { readNydusdConfig } = await import('@pantala/lazyfs/config');
  const { config, warnings } = readNydusdConfig(path, process.env);
  for (const warning of warnings) note(warning);
  if (config.sources === undefined) throw new PantalaError('failed-precondition', `${path} names no back end`);
  const { enabled, lanes, bandwidth, all } = config.prefetch;
  return {
    sources: config.sources,
    pieceLength: config.pieceLength,
    prefetch: { enabled, all, lanes: Math.max(1, lanes), ...(bandwidth === undefined ? {} : { bandwidth }) },
  };
}

async function ofImage(name: string, options: SourceOptions): Promise<MountSource> {
  // Loaded where they are needed: half of the time that a mount takes is that of loading what it does not need.
  const [{ openImageSource, parsePlatformText, parseReference, registryUrl }, { nydusBootstrap }, { accessOf }] =
    await Promise.all([
      import('@pantala/oci'),
      import('@pantala/convert/nydus-bootstrap'),
      import('../image/access.ts'),
    ]);
  const { domain, path } = parseReference(name);
  await using source = await openImageSource(name, accessOf(options));
  const platform = options.platform === undefined ? {} : { platform: parsePlatformText(options.platform) };
  const bootstrap = await nydusBootstrap(source, platform);
  const folder = await mkdtemp(join(tmpdir(), 'pantala-mount-'));
  const file = join(folder, 'image.boot');
  try {
    await writeFile(file, bootstrap, { mode: 0o600 });
  } catch (error) {
    await rm(folder, { recursive: true, force: true });
    throw PantalaError.from(error);
  }
  const peer = proxySocketOf(options.endpoint ?? defaultEndpoint());
  const registry = registryUrl(domain, { plainHttp: options.plainHttp ?? false });
  const sources: SourceSettings = {
    kind: 'registry',
    registry: {
      registry: registry.origin,
      repository: path,
      insecure: options.insecure ?? false,
      ...(options.peer && existsSync(peer) ? { peerSocket: peer } : {}),
    },
    credentials: {
      kind: 'docker',
      path: join(process.env.DOCKER_CONFIG ?? join(homedir(), '.docker'), 'config.json'),
    },
  };
  return {
    request: { bootstrap: file, sources },
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}
