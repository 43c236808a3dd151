export * from './accounting/index.ts';
export * from './api/index.ts';
export * from './cache/index.ts';
export * from './config/index.ts';
export * from './contract.ts';
export * from './prefetch/index.ts';
export * from './sources/index.ts';
