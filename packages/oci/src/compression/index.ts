export {
  type Compression,
  type DecompressOptions,
  decompressed,
  MAX_DECOMPRESSED_LENGTH,
} from './decompressed.ts';
