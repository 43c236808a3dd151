export * from './origin/index.ts';
export * from './wire/index.ts';
