export { mirrors } from './backend.ts';
export * from './load.ts';
export * from './nydusd-config.ts';
