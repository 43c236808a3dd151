export * from './entry.ts';
export { memberPath } from './member-name.ts';
export { type WalkOptions, walkTar } from './walker.ts';
export { type TarMember, writeTar } from './writer.ts';
