import type { Compressor } from '../image.ts';

/** Numbers of compressors in blob tables and headers of chunk information. */
const COMPRESSORS: readonly Compressor[] = ['none', 'lz4_block', 'gzip', 'zstd'];

export function compressorCode(compressor: Compressor): number {
  return COMPRESSORS.indexOf(compressor);
}

/** Undefined for a number that no compressor has. */
export function compressorOf(code: number): Compressor | undefined {
  return COMPRESSORS[code];
}
