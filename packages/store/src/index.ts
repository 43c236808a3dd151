export * from './contract.ts';
export type { StoreOptions } from './options.ts';
export { MAX_CONTENT_LENGTH, openStore, type StoreParts } from './store.ts';
