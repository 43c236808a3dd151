import type { RafsImage } from '@pantala/rafs';
import type { BuildOptions } from '../build/options.ts';

/** What an image without a layer is: a root. */
export function emptyImage({
  compressor = 'zstd',
  digester = 'blake3',
  chunkSize = 1024 * 1024,
}: BuildOptions): RafsImage {
  const mtime = { seconds: 0, nanoseconds: 0 };
  return {
    root: {
      kind: 'directory',
      attributes: { mode: 0o755, uid: 0, gid: 0, mtime, xattrs: new Map() },
      entries: new Map(),
    },
    blobs: [],
    chunkSize,
    compressor,
    digester,
    explicitIds: true,
    blockSize: 4096,
    prefetch: [],
  };
}
