import { availableParallelism } from 'node:os';
import { PantalaError } from '@pantala/base';
import { type Compressor, type Digester, type Lz4Origin, MAX_CHUNK_LENGTH, type RafsImage } from '@pantala/rafs';

/** How a layer becomes a blob. Sizes are bytes. */
export interface BuildOptions {
  /** Default `zstd`. */
  readonly compressor?: Exclude<Compressor, 'gzip'>;
  /** Default `blake3`. */
  readonly digester?: Digester;
  /** Of every chunk but a file's last: a power of two, 4 KiB to 16 MiB. Default 1 MiB. */
  readonly chunkSize?: number;
  /**
   * Files of less than half of it are compressed together, as many as fit: a power of two from 4 KiB up to the chunk
   * size, or 0 (default) for none.
   */
  readonly batchSize?: number;
  /** The blob has a table of contents and the digests of its chunks. Default false. */
  readonly toc?: boolean;
  /** The bootstrap lies in the blob. Default false. */
  readonly inlineBootstrap?: boolean;
  /** Images whose chunks are not stored again. They must have the same chunk size and digester. Default none. */
  readonly dictionaries?: readonly RafsImage[];
  /**
   * Threads that digest and compress, 1 to 8. Default: as many as the machine has processors, at most 8, and half as
   * many when nothing is compressed.
   */
  readonly workers?: number;
  /** Which LZ4; without it the better one that is there. */
  readonly lz4?: Lz4Origin;
}

export interface CompiledBuildOptions extends Required<Omit<BuildOptions, 'lz4'>> {
  readonly lz4: Lz4Origin | undefined;
}

/** Each takes some 10 MiB, and one thread that writes keeps no more busy. */
export const MAX_WORKERS = 8;

const MIN_CHUNK_LENGTH = 4096;

/** @throws `invalid-argument` */
export function compileBuildOptions(given: BuildOptions): CompiledBuildOptions {
  const options: CompiledBuildOptions = {
    compressor: 'zstd',
    digester: 'blake3',
    chunkSize: 1024 * 1024,
    batchSize: 0,
    toc: false,
    inlineBootstrap: false,
    dictionaries: [],
    workers: defaultWorkers(given.compressor),
    lz4: undefined,
    ...given,
  };
  const { chunkSize, batchSize, workers } = options;
  checkPower('chunk size', chunkSize, MAX_CHUNK_LENGTH);
  if (batchSize !== 0) checkPower('batch size', batchSize, chunkSize);
  if (!Number.isInteger(workers) || workers < 1 || workers > MAX_WORKERS) {
    throw new PantalaError('invalid-argument', `${workers} threads: give 1 to ${MAX_WORKERS}`);
  }
  for (const [index, image] of options.dictionaries.entries()) {
    if (image.chunkSize === chunkSize && image.digester === options.digester && image.blockSize === 4096) continue;
    throw new PantalaError(
      'invalid-argument',
      `dictionary ${index + 1} has chunks of ${image.chunkSize} bytes and ${image.digester} digests, this image ${chunkSize} and ${options.digester}; they must be the same`,
    );
  }
  return options;
}

function defaultWorkers(compressor: BuildOptions['compressor']): number {
  const all = Math.min(availableParallelism(), MAX_WORKERS);
  return compressor === 'none' ? Math.ceil(all / 2) : all;
}

function checkPower(name: string, value: number, limit: number): void {
  if (Number.isInteger(Math.log2(value)) && value >= MIN_CHUNK_LENGTH && value <= limit) return;
  throw new PantalaError(
    'invalid-argument',
    `the ${name} is ${value}: give a power of two from ${MIN_CHUNK_LENGTH} to ${limit}`,
  );
}
