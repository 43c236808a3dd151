export type { DirectClient, DirectRequest, DirectResponse } from './direct.ts';
export type {
  AllowedHost,
  InterceptOptions,
  ListenOptions,
  MirrorOptions,
  ProxyOptions,
} from './options.ts';
export { compilePattern } from './pattern.ts';
export type { RuleOptions } from './rules.ts';
export { type ListenAddress, type ProxyParts, type ProxyServer, startProxy } from './server.ts';
