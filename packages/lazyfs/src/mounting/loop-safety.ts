import type { ByteString } from '@pantala/base';
import { type RafsImage, walk } from '@pantala/rafs';

/**
 * A file that Linux would read wrong from an image whose blobs are block devices; undefined when there is none.
 *
 * When reading ahead, iomap goes on with a request whose last sector is followed by the next one wanted, without a look
 * at the device that it belongs to: where a chunk ends at the number at which the file's next one begins in another blob,
 * the second is read from the first one's device (seen on 6.18; reported to the kernel's list in June 2026). Devices
 * that are files are read by other code.
 */
export function mixedUpFile({ root, blobs, blockSize }: RafsImage): ByteString | undefined {
  if (blobs.length < 2) return undefined;
  for (const { path, node } of walk(root)) {
    if (node.kind !== 'regular') continue;
    let before: { readonly blob: number; readonly end: number } | undefined;
    for (const chunk of node.content) {
      const { blobIndex, uncompressedOffset: start, uncompressedSize } = chunk;
      if (before !== undefined && before.blob !== blobIndex && before.end === start) return path;
      before = { blob: blobIndex, end: Math.ceil((start + uncompressedSize) / blockSize) * blockSize };
    }
  }
  return undefined;
}
