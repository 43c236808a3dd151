import { isHole, type TarPiece } from '@pantala/oci';
import { chunkDigest, type Digester } from '@pantala/rafs';

/** How an image cuts and digests files. */
export interface DigestRule {
  readonly digester: Digester;
  /** Bytes of every chunk but the last. */
  readonly chunkSize: number;
}

/** Digests of a content's chunks. In memory is one chunk at a time. */
export async function contentDigests(
  pieces: AsyncIterable<TarPiece> | Iterable<TarPiece>,
  { digester, chunkSize }: DigestRule,
): Promise<Uint8Array[]> {
  const digests: Uint8Array[] = [];
  let chunk: Buffer | undefined;
  let filled = 0;
  for await (const piece of pieces) {
    for (let at = 0; at < piece.length; ) {
      chunk ??= Buffer.allocUnsafe(chunkSize);
      const step = Math.min(piece.length - at, chunkSize - filled);
      if (isHole(piece)) chunk.fill(0, filled, filled + step);
      else chunk.set(piece.subarray(at, at + step), filled);
      at += step;
      filled += step;
      if (filled < chunkSize) continue;
      digests.push(chunkDigest(digester, chunk));
      filled = 0;
    }
  }
  if (filled > 0 && chunk !== undefined) digests.push(chunkDigest(digester, chunk.subarray(0, filled)));
  return digests;
}
