import { createRequire } from 'node:module';
import { PantalaError } from '@pantala/base';
import type { KoffiFunc } from 'koffi';

/**
 * Zstandard with contexts that are used again: node:zlib makes one for each call, which costs more than a small chunk
 * itself, and always answers with new memory.
 */
export interface ZstdLibrary {
  /** One frame. Bytes written into `target`; 0 when it has no room for the whole frame. */
  compress(source: Uint8Array, target: Uint8Array, level: number): number;
  /** Bytes written into `target`; negative when `source` is damaged or its content is longer than `target`. */
  decompress(source: Uint8Array, target: Uint8Array): number;
}

type Create = KoffiFunc<() => unknown>;
type Compress = KoffiFunc<
  (
    context: unknown,
    target: Uint8Array,
    capacity: number,
    source: Uint8Array,
    length: number,
    level: number,
  ) => number | bigint
>;
type Decompress = KoffiFunc<
  (context: unknown, target: Uint8Array, capacity: number, source: Uint8Array, length: number) => number | bigint
>;

let loaded: ZstdLibrary | string | undefined;

/** The zstd that the Node executable is built with (zstd.h) and exports, or why it cannot be called. */
export function exportedZstd(): ZstdLibrary | string {
  loaded ??= load();
  return loaded;
}

function load(): ZstdLibrary | string {
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
    const node = koffi.load(null);
    const createCompressor: Create = node.func('void *ZSTD_createCCtx()');
    const createDecompressor: Create = node.func('void *ZSTD_createDCtx()');
    // size_t in C, and errors are its highest values: as a signed number they are negative.
    const compress: Compress = node.func(
      'int64_t ZSTD_compressCCtx(void *context, void *target, size_t capacity, const void *source, size_t length, int level)',
    );
    const decompress: Decompress = node.func(
      'int64_t ZSTD_decompressDCtx(void *context, void *target, size_t capacity, const void *source, size_t length)',
    );
    const compressor = createCompressor();
    const decompressor = createDecompressor();
    if (compressor === null || decompressor === null) return 'zstd of the Node executable gives no context';
    return tried({
      compress(source, target, level) {
        return Math.max(0, Number(compress(compressor, target, target.length, source, source.length, level)));
      },
      decompress(source, target) {
        return Number(decompress(decompressor, target, target.length, source, source.length));
      },
    });
  } catch (error) {
    return `the Node executable does not export zstd: ${PantalaError.from(error).message}`;
  }
}

const SAMPLE = Buffer.from('the globe skimmer, the globe skimmer, the globe skimmer, the globe skimmer');
const SAMPLE_LEVEL = 1;

/** A library that answers something else than what it was given is none. */
function tried(library: ZstdLibrary): ZstdLibrary | string {
  const frame = new Uint8Array(SAMPLE.length);
  const length = library.compress(SAMPLE, frame, SAMPLE_LEVEL);
  const back = Buffer.alloc(SAMPLE.length);
  const whole = length > 0 && library.decompress(frame.subarray(0, length), back) === SAMPLE.length;
  return whole && back.equals(SAMPLE) ? library : 'zstd of the Node executable gives wrong bytes';
}
