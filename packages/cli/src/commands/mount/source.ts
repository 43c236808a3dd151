import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join, resolve } from 'node:path';
import { PantalaError, proxySocketOf } from '@pantala/base';
import type { OrderedSource } from '@pantala/lazyfs/client';
import { defaultEndpoint } from '../../endpoint.ts';
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

/**
 * Where bootstrap and blobs are: of an image in a registry, or of files.
 *
 * @throws `invalid-argument` when it is not said where something is; `not-found` for a configuration
 */
export function mountSource(image: string | undefined, options: SourceOptions): OrderedSource {
  if (image !== undefined) return ofImage(image, options);
  const { bootstrap, blobDir, config } = options;
  if (bootstrap === undefined)
    throw new PantalaError('invalid-argument', 'name an image, or --bootstrap and --blob-dir');
  if (config === undefined && blobDir.length === 0) {
    throw new PantalaError('invalid-argument', 'where are the blobs? Name their folder with --blob-dir, or --config');
  }
  const file = resolve(bootstrap);
  if (config === undefined) {
    const directories = blobDir.map((each) => resolve(each));
    return { bootstrap: file, sources: { kind: 'local', local: { directories } } };
  }
  const path = resolve(config);
  if (!existsSync(path)) throw new PantalaError('not-found', `there is no configuration ${path}`);
  const pullAuth = process.env.IMAGE_PULL_AUTH;
  return { bootstrap: file, config: { path, ...(pullAuth === undefined ? {} : { pullAuth }) } };
}

function ofImage(reference: string, options: SourceOptions): OrderedSource {
  const { platform, plainHttp, insecure } = options;
  const peer = proxySocketOf(options.endpoint ?? defaultEndpoint());
  return {
    image: {
      reference,
      ...(platform === undefined ? {} : { platform }),
      plainHttp: plainHttp ?? false,
      insecure: insecure ?? false,
      credentials: resolve(process.env.DOCKER_CONFIG ?? join(homedir(), '.docker'), 'config.json'),
      ...peerOf(options.peer, peer),
    },
  };
}

/** A peer that is not there yet may come to be where peers are by default. */
function peerOf(wanted: boolean, socket: string): { readonly peerSocket?: string | false } {
  if (!wanted) return { peerSocket: false };
  return existsSync(socket) ? { peerSocket: socket } : {};
}
