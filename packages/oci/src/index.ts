export { anonymous, type CredentialSource, type Credentials, dockerConfigCredentials } from './credentials.ts';
export * from './manifest.ts';
export * from './platform.ts';
export * from './reference.ts';
export * from './registry.ts';
export * from './registry-host.ts';
export * from './repository.ts';
export * from './transport.ts';
