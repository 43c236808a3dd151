export {
  type BlobOutcome,
  type CopyEvent,
  type CopyOptions,
  type CopyReport,
  copyContent,
  copyImage,
  mountableFrom,
  refuseForeign,
  selectImage,
} from './copy.ts';
export { descriptorDocument, platformDocument } from './layout-index.ts';
export * from './location.ts';
export { putReferrer } from './referrer.ts';
export {
  type BlobName,
  checked,
  type ImageSource,
  type ImageTarget,
  type PutOptions,
  type ReadOptions,
} from './source.ts';
export { together } from './together.ts';
