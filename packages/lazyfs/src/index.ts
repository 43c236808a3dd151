export * from './cache/index.ts';
export * from './contract.ts';
export * from './sources/index.ts';
