export type * from './origin/contract.ts';
export type * from './wire/contract.ts';
