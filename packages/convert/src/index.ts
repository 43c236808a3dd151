export * from './inspect/entries.ts';
export * from './inspect/listing.ts';
export * from './inspect/mount-plan.ts';
export * from './inspect/statistics.ts';
export { TarTree, type TarTreeResult } from './sources/tar-tree.ts';
export * from './unpack/directory.ts';
export type { Loss } from './unpack/losses.ts';
