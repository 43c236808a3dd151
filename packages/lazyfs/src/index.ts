export * from './cache/index.ts';
export * from './contract.ts';
