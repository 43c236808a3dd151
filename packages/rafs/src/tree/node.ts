import type { ByteString } from '@pantala/base';
import type { Chunk } from '../image.ts';

/** A point in time as inodes keep it. */
export interface Timestamp {
  /** Since 1970, may be negative. */
  readonly seconds: number;
  /** 0 to 999,999,999. */
  readonly nanoseconds: number;
}

export interface Attributes {
  /** Permissions with setuid, setgid and sticky bit: 0 to 0o7777. What kind of file it is says the node. */
  readonly mode: number;
  readonly uid: number;
  readonly gid: number;
  readonly mtime: Timestamp;
  /** Whole names, as `security.capability`, with their values. */
  readonly xattrs: ReadonlyMap<ByteString, Uint8Array>;
}

export const NO_XATTRS: ReadonlyMap<ByteString, Uint8Array> = new Map();

export interface Directory<Content = FileChunks> {
  readonly kind: 'directory';
  readonly attributes: Attributes;
  /** In any order; neither `.` nor `..`. */
  readonly entries: Map<ByteString, Node<Content>>;
}

export interface RegularFile<Content = FileChunks> {
  readonly kind: 'regular';
  readonly attributes: Attributes;
  /** Bytes. */
  readonly size: number;
  /** What the file holds, or where that is. */
  readonly content: Content;
}

export interface Symlink {
  readonly kind: 'symlink';
  readonly attributes: Attributes;
  readonly target: ByteString;
}

export interface Device {
  readonly kind: 'character' | 'block';
  readonly attributes: Attributes;
  readonly major: number;
  readonly minor: number;
}

export interface Special {
  readonly kind: 'fifo' | 'socket';
  readonly attributes: Attributes;
}

/** The chunks of a file in order. All but the last have the image's chunk size. */
export type FileChunks = readonly Chunk[];

/**
 * One file of a tree. Hard links are one and the same object under several names; only directories have exactly one.
 * `Content` says how the data of regular files is known: in an image by chunks, in a source by whatever reads it.
 */
export type Node<Content = FileChunks> = Directory<Content> | RegularFile<Content> | Symlink | Device | Special;

export type NodeKind = Node['kind'];
