import { open } from 'node:fs/promises';
import { contentHasher, type DigestAlgorithm } from '@pantala/base';

const READ_LENGTH = 1024 * 1024;

/** Digest of a file's content, lower-case hex. */
export async function digestOfFile(path: string, algorithm: DigestAlgorithm): Promise<string> {
  const hasher = contentHasher(algorithm);
  await using file = await open(path, 'r');
  const buffer = Buffer.allocUnsafe(READ_LENGTH);
  for (;;) {
    const { bytesRead } = await file.read(buffer, 0, buffer.length);
    if (bytesRead === 0) return hasher.digest('hex');
    hasher.update(buffer.subarray(0, bytesRead));
  }
}
