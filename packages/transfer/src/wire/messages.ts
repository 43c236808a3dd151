import type { BlockRun } from '@pantala/base';

export type PieceFamily = 'standard' | 'persistent' | 'persistent-cache' | 'cache';

export interface DownloadPiece {
  readonly kind: 'download-piece';
  readonly family: PieceFamily;
  readonly taskId: string;
  readonly piece: number;
}

/** What upstream says of a piece; `length` bytes of content follow the packet, unframed. */
export interface PieceContent {
  readonly kind: 'piece-content';
  readonly family: PieceFamily;
  readonly piece: number;
  readonly offset: number;
  readonly length: number;
  /** `crc32:<decimal>`; upstream sends an empty one for pieces that it never checked. */
  readonly digest: string;
  readonly parentId: string;
  /** Upstream's TrafficType: 0 back to source, 1 remote peer, 2 local peer. */
  readonly trafficType: number;
  /** Seconds. */
  readonly cost: number;
  /** Seconds since the epoch. */
  readonly createdAt: number;
}

export interface RangeRequestPacket {
  readonly kind: 'range-request';
  readonly request: number;
  readonly taskId: string;
  readonly pieceLength: number;
  readonly run: BlockRun;
  readonly wantDigests: boolean;
  readonly fetchMissing: boolean;
}

export interface RangeDigests {
  readonly kind: 'range-digests';
  readonly request: number;
  readonly piece: number;
  readonly digests: Buffer;
}

/** `bytes` bytes of content follow the packet, unframed. */
export interface RangeData {
  readonly kind: 'range-data';
  readonly request: number;
  readonly run: BlockRun;
  readonly bytes: number;
}

export interface RangeEnd {
  readonly kind: 'range-end';
  readonly request: number;
}

export interface RangeError {
  readonly kind: 'range-error';
  readonly request: number;
  readonly code: number;
  readonly message: string;
}

export interface CancelRange {
  readonly kind: 'cancel-range';
  readonly request: number;
}

export interface Close {
  readonly kind: 'close';
}

export interface ErrorPacket {
  readonly kind: 'error';
  readonly code: number;
  readonly message: string;
}

export type Message =
  | DownloadPiece
  | PieceContent
  | RangeRequestPacket
  | RangeDigests
  | RangeData
  | RangeEnd
  | RangeError
  | CancelRange
  | Close
  | ErrorPacket;
