import { createRequire } from 'node:module';
import { PantalaError } from '@pantala/base';
import type { KoffiFunc } from 'koffi';

/** Raw LZ4 blocks: no frame, no size in front. */
export interface Lz4Library {
  /** Bytes written into `target`; 0 when it has no room for the whole block. */
  compress(source: Uint8Array, target: Uint8Array): number;
  /** Bytes written into `target`; negative when `source` is no LZ4 block or its content is longer than `target`. */
  decompress(source: Uint8Array, target: Uint8Array): number;
}

const LIBRARY = 'liblz4.so.1';

type BlockFunction = KoffiFunc<
  (source: Uint8Array, target: Uint8Array, sourceLength: number, capacity: number) => number
>;

let loaded: Lz4Library | string | undefined;

/** The LZ4 library of this system (lz4.h), or why it cannot be called. Loaded at the first use. */
export function systemLz4(): Lz4Library | string {
  loaded ??= load();
  return loaded;
}

function load(): Lz4Library | string {
  try {
    const koffi = createRequire(import.meta.url)('koffi') as typeof import('koffi');
    const library = koffi.load(LIBRARY);
    const prototype = (name: string) => `int ${name}(const void *source, void *target, int length, int capacity)`;
    const compress: BlockFunction = library.func(prototype('LZ4_compress_default'));
    const decompress: BlockFunction = library.func(prototype('LZ4_decompress_safe'));
    return tried({
      compress: (source, target) => compress(source, target, source.length, target.length),
      decompress: (source, target) => decompress(source, target, source.length, target.length),
    });
  } catch (error) {
    return `${LIBRARY} does not load: ${PantalaError.from(error).message}`;
  }
}

const SAMPLE = Buffer.from('the globe skimmer, the globe skimmer, the globe skimmer, the globe skimmer');

/** A library that answers something else than what it was given is none. */
function tried(library: Lz4Library): Lz4Library | string {
  const block = new Uint8Array(SAMPLE.length);
  const length = library.compress(SAMPLE, block);
  const back = Buffer.alloc(SAMPLE.length);
  const whole = length > 0 && library.decompress(block.subarray(0, length), back) === SAMPLE.length;
  return whole && back.equals(SAMPLE) ? library : `${LIBRARY} gives wrong bytes`;
}
