export { SourceChain } from './chain.ts';
export { localSources, registrySources, type SourceParts } from './create.ts';
export { type BackendCounters, SourceMetrics } from './metrics.ts';
export type { LocalSourceOptions, MirrorOptions, ProxyOptions, RegistrySourceOptions } from './options.ts';
