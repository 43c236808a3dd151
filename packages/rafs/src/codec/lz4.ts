import { createRequire } from 'node:module';
import { PantalaError } from '@pantala/base';
import { type Lz4Library, systemLz4 } from '@pantala/linux';

/** The package puts the size of the content in front of each block: four bytes, little-endian. */
const SIZE_PREFIX = 4;

let loaded: typeof import('lz4-napi') | undefined;

/** Loaded at the first use: hardly any machine is without the system's library. */
function lz4Package(): typeof import('lz4-napi') {
  loaded ??= createRequire(import.meta.url)('lz4-napi') as typeof import('lz4-napi');
  return loaded;
}

const bundled: Lz4Library = {
  compress(source, target) {
    const { compressSync } = lz4Package();
    const prefixed = compressSync(asBuffer(source));
    const length = prefixed.length - SIZE_PREFIX;
    const fits = length <= target.length;
    if (fits) target.set(prefixed.subarray(SIZE_PREFIX));
    release(prefixed);
    return fits ? length : 0;
  },

  decompress(source, target) {
    const { uncompressSync } = lz4Package();
    const prefixed = Buffer.allocUnsafe(SIZE_PREFIX + source.length);
    prefixed.writeUInt32LE(target.length);
    prefixed.set(source, SIZE_PREFIX);
    try {
      const content = uncompressSync(prefixed);
      const { length } = content;
      if (length <= target.length) target.set(content);
      release(content);
      return length <= target.length ? length : -1;
    } catch {
      return -1;
    }
  },
};

/** Where LZ4 comes from: the system's library, three times as fast and a little tighter, or the package of npm. */
export type Lz4Origin = 'system' | 'bundled';

/** The system's library where there is one, unless `origin` says which. @throws `unimplemented` without `system` */
export function lz4Library(origin?: Lz4Origin): Lz4Library {
  if (origin === 'bundled') return bundled;
  const system = systemLz4();
  if (typeof system !== 'string') return system;
  if (origin === 'system') throw new PantalaError('unimplemented', `LZ4 of the system cannot be used: ${system}`);
  return bundled;
}

/** Which one `lz4Library` gives. @throws as it does */
export function lz4Origin(origin?: Lz4Origin): Lz4Origin {
  return lz4Library(origin) === bundled ? 'bundled' : 'system';
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Its memory is not V8's, which would let a hundred megabytes of it gather before it cleans up. */
function release(answer: Buffer): void {
  const { buffer } = answer;
  if (buffer instanceof ArrayBuffer && buffer.byteLength === answer.byteLength) buffer.transfer(0);
}
