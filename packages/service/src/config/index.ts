export * from './document.ts';
export * from './nearest.ts';
export * from './schema.ts';
export * from './tls-files.ts';
export * from './toml.ts';
export * from './units.ts';
