export type * from './origin/contract.ts';
export * from './wire/index.ts';
