export type * from './contract.ts';
export { createOrigin, type OriginAccess } from './create-origin.ts';
export type { DirectAccess, DirectRequest, DirectResponse } from './direct.ts';
export { OriginError } from './errors.ts';
export type { AddressRules, ListenerAddress, OriginOptions, OriginTrust } from './options.ts';
