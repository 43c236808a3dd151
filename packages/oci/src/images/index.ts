export {
  type BlobOutcome,
  type CopyEvent,
  type CopyOptions,
  type CopyReport,
  copyImage,
  refuseForeign,
  selectImage,
} from './copy.ts';
export { descriptorDocument, platformDocument } from './layout-index.ts';
export * from './location.ts';
export { type BlobName, checked, type ImageSource, type ImageTarget, type PutOptions } from './source.ts';
export { together } from './together.ts';
