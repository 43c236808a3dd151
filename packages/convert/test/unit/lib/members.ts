import { createHash } from 'node:crypto';
import { byteStringOf } from '@pantala/base';
import type { TarEntry, TarPiece } from '@pantala/oci';

/** A regular file of a tar. @param content in pieces of `step` bytes, or in its own, of which some are holes */
export function member(path: string, content: Uint8Array | readonly TarPiece[], step = 1000): TarEntry {
  const pieces = ArrayBuffer.isView(content)
    ? Array.from({ length: Math.ceil(content.length / step) }, (_, i) => content.subarray(step * i, step * (i + 1)))
    : content;
  return {
    kind: 'regular',
    path: byteStringOf(path),
    mode: 0o644,
    uid: 1,
    gid: 2,
    mtime: { seconds: 3, nanoseconds: 4 },
    size: pieces.reduce((sum, piece) => sum + piece.length, 0),
    linkTarget: '',
    major: 0,
    minor: 0,
    xattrs: new Map(),
    offset: 0,
    contentOffset: 512,
    sparse: !ArrayBuffer.isView(content),
    async *content() {
      yield* pieces;
    },
  };
}

export async function* stream(members: Iterable<TarEntry>): AsyncGenerator<TarEntry> {
  yield* members;
}

/** Bytes that do not shrink, the same for the same seed. */
export function noise(length: number, seed: string | number): Buffer {
  return createHash('shake256', { outputLength: length }).update(String(seed)).digest();
}
