import { createHash } from 'node:crypto';
import {
  type BlobEnd,
  type BlobInfo,
  BlobLayout,
  type BlobLayoutOptions,
  type Chunk,
  chunkDigest,
  compressed,
} from '../../../src/index.ts';

export interface BuiltBlob {
  readonly bytes: Buffer;
  readonly end: BlobEnd;
  readonly blob: BlobInfo;
  readonly chunks: readonly Chunk[];
}

export interface BuildOptions extends BlobLayoutOptions {
  readonly bootstrap?: Uint8Array;
  /** Shorter contents than this go into batches of at most twice as much. */
  readonly batched?: number;
}

/** A blob of `contents`, written as a builder does. */
export function buildBlob(contents: readonly Uint8Array[], options: BuildOptions): BuiltBlob {
  const layout = new BlobLayout(options);
  const data: Uint8Array[] = [];
  const chunks: Chunk[] = [];
  let batch: Uint8Array[] = [];
  const close = () => {
    if (batch.length === 0) return;
    const content = Buffer.concat(batch);
    const stored = compressed(options.compressor, content) ?? content;
    layout.closeBatch(stored.length);
    data.push(stored);
    batch = [];
  };
  for (const content of contents) {
    const digest = chunkDigest(options.digester, content);
    if (options.batches && content.length < (options.batched ?? 0)) {
      if (layout.openBatch + content.length > 2 * (options.batched ?? 0)) close();
      chunks.push(layout.addToBatch(0, digest, content.length));
      batch.push(content);
    } else {
      close();
      const stored = compressed(options.compressor, content) ?? content;
      chunks.push(layout.add(0, digest, content.length, stored.length));
      data.push(stored);
    }
  }
  close();
  const dataDigest = createHash('sha256').update(Buffer.concat(data)).digest();
  const { bootstrap } = options;
  const end = layout.finish(dataDigest, bootstrap === undefined ? undefined : () => bootstrap);
  if (end.blob === undefined) throw new Error('a blob without chunks');
  return { bytes: Buffer.concat([...data, ...end.parts]), end, blob: end.blob, chunks };
}
