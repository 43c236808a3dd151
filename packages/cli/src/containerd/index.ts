export { configPathOf } from './config-toml.ts';
export * from './hosts-toml.ts';
export * from './mirror.ts';
