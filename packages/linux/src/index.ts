export * from './errors.ts';
export * from './files.ts';
export { LIBC_FUNCTIONS, type LibcFunction, whyMissing } from './libc.ts';
export * from './lz4.ts';
export * from './self-test.ts';
export * from './sendfile-pump.ts';
export * from './zstd.ts';
