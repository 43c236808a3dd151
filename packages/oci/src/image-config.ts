import { PantalaError } from '@pantala/base';
import { MAX_LAYERS, MAX_MANIFEST_BYTES, type Platform } from './manifest.ts';
import { isDigest } from './reference.ts';

/** Steps of an image's history: one or two for each layer. */
const MAX_HISTORY = 4 * MAX_LAYERS;

/** What Pantala needs of an image's configuration (https://github.com/opencontainers/image-spec/blob/main/config.md). */
export interface ImageConfig {
  /** Everything, as it stands, to be written again. */
  readonly document: Readonly<Record<string, unknown>>;
  readonly platform: Platform;
  /** Digests of the layers' tars without compression, from the lowest up. */
  readonly diffIds: readonly string[];
  readonly history: readonly unknown[];
}

/** @throws `invalid-argument` naming the field that is wrong */
export function parseImageConfig(bytes: Uint8Array): ImageConfig {
  if (bytes.length > MAX_MANIFEST_BYTES) throw wrong(`has ${bytes.length} bytes; at most ${MAX_MANIFEST_BYTES}`);
  let document: unknown;
  try {
    document = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw new PantalaError('invalid-argument', "the image's configuration is no JSON", { cause: error });
  }
  if (!isObject(document)) throw wrong('is no object');
  const rootfs = document.rootfs;
  const diffIds = isObject(rootfs) ? rootfs.diff_ids : undefined;
  if (!Array.isArray(diffIds) || diffIds.length > MAX_LAYERS) throw wrong('has no rootfs.diff_ids');
  for (const id of diffIds) if (typeof id !== 'string' || !isDigest(id)) throw wrong('has a diff_id that is no digest');
  const history = document.history ?? [];
  if (!Array.isArray(history) || history.length > MAX_HISTORY) throw wrong('has a history that is none');
  const text = (name: string) => (typeof document[name] === 'string' ? document[name] : undefined);
  const [variant, osVersion] = [text('variant'), text('os.version')];
  return {
    document,
    platform: {
      os: text('os') ?? 'linux',
      architecture: text('architecture') ?? '',
      ...(variant === undefined || variant === '' ? {} : { variant }),
      ...(osVersion === undefined ? {} : { osVersion }),
    },
    diffIds,
    history,
  };
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function wrong(what: string): PantalaError {
  return new PantalaError('invalid-argument', `the image's configuration ${what}`);
}
