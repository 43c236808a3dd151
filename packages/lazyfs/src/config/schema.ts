import {
  always,
  type ConfigNode,
  choice,
  count,
  type Decoded,
  type Decoder,
  flag,
  optionalSection,
  section,
  text,
} from '@pantala/service';
import { backend } from './backend.ts';
import type { NydusdConfig } from './nydusd-config.ts';

const MIB = 1024 * 1024;
/** Upper bounds that nydusd has, too. */
const MAX_PIECE = 256 * MIB;
const MAX_LANES = 1024;

const CHECKED = 'every chunk is checked against its digest, always';
const KERNEL = 'the kernel reads the image itself';
const ONE_MAP = 'which chunks are there says a journal of our own';
const PLAIN_CACHE = 'the kernel reads cached blobs as they are: they cannot be encrypted';
const EXTERNAL = 'external blobs are not read';

const cacheConfig = section(
  { work_dir: text() },
  {
    unused: {
      disable_indexed_map: ONE_MAP,
      enable_encryption: PLAIN_CACHE,
      enable_convergent_encryption: PLAIN_CACHE,
      encryption_key: PLAIN_CACHE,
    },
  },
);

/** The cache is always one of files; other types are told that. */
const cacheType: Decoder<string> = {
  decode(node) {
    const type = node.absent ? '' : (node.text ?? '');
    if (!['', 'blobcache', 'filecache'].includes(type)) {
      node.warning(`${node.path}: "${type}" has no effect: blobs are cached in files, which the kernel reads`);
    }
    return type;
  },
};

const compressed = always(false, 'the kernel reads cached blobs, so they are decoded');
const attributes = always(true, KERNEL);

function prefetchSection(
  keys: { readonly threads: string; readonly piece: string; readonly bandwidth: string },
  all: boolean,
) {
  return optionalSection(
    {
      enable: flag(false),
      [keys.threads]: count(8),
      [keys.piece]: count(MIB),
      [keys.bandwidth]: count(0),
      prefetch_all: flag(all),
    },
    { unused: { stream_prefetch: 'blobs are fetched range by range, so that readers come first' } },
  );
}

const V1_PREFETCH = { threads: 'threads_count', piece: 'merging_size', bandwidth: 'bandwidth_rate' };
const V2_PREFETCH = { threads: 'threads', piece: 'batch_size', bandwidth: 'bandwidth_limit' };

/** The first generation: JSON, without a version. */
export function decodeV1(root: ConfigNode, environment: NodeJS.ProcessEnv): NydusdConfig {
  const device = section(
    {
      id: text(''),
      backend: backend(() => 'config', [], environment),
      cache: section({
        type: cacheType,
        compressed,
        validate: always(true, CHECKED),
        config: cacheConfig,
      }),
    },
    { unused: { external_backends: EXTERNAL } },
  );
  const file = section({
    device,
    mode: choice(['direct', 'cached'], 'direct'),
    digest_validate: always(true, CHECKED),
    iostats_files: flag(false),
    enable_xattr: attributes,
    access_pattern: flag(false),
    latest_read_files: flag(false),
    amplify_io: count(MIB),
    fs_prefetch: prefetchSection(V1_PREFETCH, true),
  }).decode(root);
  return {
    id: file.device.id,
    sources: file.device.backend,
    workDirectory: file.device.cache.config.work_dir,
    pieceLength: bounded(root, 'amplify_io', file.amplify_io, MAX_PIECE),
    prefetch: prefetchOf(root, file.fs_prefetch, V1_PREFETCH, true),
    accounting: { files: file.iostats_files, pattern: file.access_pattern, latest: file.latest_read_files },
  };
}

const BACKENDS = ['localdisk', 'localfs', 'oss', 's3', 'registry', 'http-proxy'];

/** The second generation: TOML, or JSON with `version: 2`. */
export function decodeV2(root: ConfigNode, environment: NodeJS.ProcessEnv): NydusdConfig {
  const file = section(
    {
      version: count(2),
      id: text(''),
      backend: backend((type) => type, BACKENDS, environment),
      cache: section(
        {
          type: cacheType,
          compressed,
          validate: always(true, CHECKED),
          filecache: cacheConfig,
          prefetch: prefetchSection(V2_PREFETCH, false),
        },
        { unused: { fscache: 'the kernel has no fscache for this any more' } },
      ),
      rafs: section({
        mode: choice(['direct', 'cached'], 'direct'),
        batch_size: count(MIB),
        validate: always(true, CHECKED),
        enable_xattr: attributes,
        iostats_files: flag(false),
        access_pattern: flag(false),
        latest_read_files: flag(false),
        prefetch: prefetchSection(V2_PREFETCH, false),
      }),
    },
    { unused: { external_backends: EXTERNAL, overlay: KERNEL } },
  ).decode(root);
  const { rafs, cache } = file;
  return {
    id: file.id,
    sources: file.backend,
    workDirectory: cache.filecache.work_dir,
    pieceLength: bounded(root, 'rafs.batch_size', rafs.batch_size, MAX_PIECE),
    prefetch: prefetchOf(root, rafs.prefetch ?? cache.prefetch, V2_PREFETCH, false),
    accounting: { files: rafs.iostats_files, pattern: rafs.access_pattern, latest: rafs.latest_read_files },
  };
}

function prefetchOf(
  root: ConfigNode,
  decoded: Decoded<ReturnType<typeof prefetchSection>>,
  keys: typeof V1_PREFETCH,
  all: boolean,
): NydusdConfig['prefetch'] {
  const numbers = new Map(Object.entries(decoded ?? {}).filter(([, value]) => typeof value === 'number'));
  const bandwidth = Number(numbers.get(keys.bandwidth) ?? 0);
  return {
    enabled: decoded?.enable === true,
    lanes: Math.max(1, bounded(root, keys.threads, Number(numbers.get(keys.threads) ?? 8), MAX_LANES)),
    bandwidth: bandwidth === 0 ? undefined : bandwidth,
    all: decoded === undefined ? all : decoded.prefetch_all === true,
  };
}

function bounded(root: ConfigNode, key: string, value: number, most: number): number {
  if (value > most) root.problem(`${key} is ${value}; at most ${most}`);
  return Math.min(value, most);
}

/** Which generation a file is of. */
export const versionOf = (root: ConfigNode): ConfigNode | undefined =>
  root.entries?.find(({ key }) => key === 'version')?.value ?? undefined;
