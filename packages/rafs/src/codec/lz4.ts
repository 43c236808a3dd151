import { compressSync, uncompressSync } from 'lz4-napi';

export { compressSync, uncompressSync };
