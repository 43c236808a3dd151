import type { ByteString } from '@pantala/base';

export type TarEntryKind = 'regular' | 'directory' | 'symlink' | 'hardlink' | 'character' | 'block' | 'fifo';

/** A run of a sparse file that the archive does not hold: zeros. */
export interface Hole {
  readonly hole: true;
  /** Bytes. */
  readonly length: number;
}

/** Content in order. Bytes are a view of what the source yielded, to be read before the next piece is asked for. */
export type TarPiece = Uint8Array | Hole;

export interface TarTime {
  /** Since 1970, may be negative. */
  readonly seconds: number;
  /** 0 to 999,999,999. */
  readonly nanoseconds: number;
}

/** What a tar says of a member, without its content; what the writer takes. */
export interface TarHeader {
  readonly kind: TarEntryKind;
  /**
   * Names below the root with `/` between them, no name being empty, `.` or `..`; empty for the root itself.
   */
  readonly path: ByteString;
  /** Permissions with setuid, setgid and sticky bit: 0 to 0o7777. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: TarTime;
  /** Bytes of a regular file with its holes; 0 for anything else. */
  readonly size: number;
  /** What a symbolic link holds, as it is; the path (as `path`) of what a hard link names; empty else. */
  readonly linkTarget: ByteString;
  /** Of devices; 0 else. */
  readonly major: number;
  readonly minor: number;
  /** Whole names, as `security.capability`, with their values. */
  readonly xattrs: ReadonlyMap<ByteString, Uint8Array>;
}

/** A member of an archive that is being walked. */
export interface TarEntry extends TarHeader {
  /** Where its header begins in the (decompressed) archive. */
  readonly offset: number;
  /** Where the content of a regular file begins; of a sparse one only its data stands there. */
  readonly contentOffset: number;
  readonly sparse: boolean;
  /**
   * The content of a regular file, `size` bytes in all, once and before the next member is asked for. What is not
   * read is skipped.
   */
  content(): AsyncIterable<TarPiece>;
}

export function isHole(piece: TarPiece): piece is Hole {
  return 'hole' in piece;
}
