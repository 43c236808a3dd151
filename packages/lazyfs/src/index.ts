export * from './accounting/index.ts';
export * from './api/index.ts';
export * from './cache/index.ts';
export * from './config/index.ts';
export * from './contract.ts';
export { type Capabilities, tryDrivers } from './mounting/trial.ts';
export * from './prefetch/index.ts';
export * from './sources/index.ts';
export * from './worker/client.ts';
