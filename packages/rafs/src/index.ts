export * from './codec/compression.ts';
export * from './codec/digests.ts';
export { type Lz4Origin, lz4Library } from './codec/lz4.ts';
export * from './image.ts';
export { malformed } from './malformed.ts';
export * from './tree/node.ts';
