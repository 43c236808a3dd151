import type { ByteRange } from '@pantala/base';
import type { Urgency } from '../contract.ts';

/** A range of a blob that was not there and then was. */
export interface FillEvent {
  readonly blobId: string;
  /** Of the decoded blob: from the first to the last chunk that was filled by it. */
  readonly range: ByteRange;
  /** A source's name, `cache` for chunks that were there unrecorded, `blob <id>` for those copied from another one. */
  readonly source: string;
  /** Stored bytes that were fetched, 0 for copies. */
  readonly fetched: number;
  readonly urgency: Urgency;
  /** From the wish to the last chunk. */
  readonly milliseconds: number;
}

export type FillListener = (event: FillEvent) => void;
