export { ErrorEvents } from './error-events.ts';
export { FileIndex, type IndexedFile } from './file-index.ts';
export { FillTrace, type FillTraceOptions } from './fill-trace.ts';
export { type AccountingOptions, MountAccounting } from './mount-accounting.ts';
