/** What a thread that reads events is told when it starts. Descriptors are the process's own. */
export interface PumpSettings {
  readonly source: number;
  readonly wakeUp: number;
  readonly table: number;
  /** Which of the threads it is, from 0 on. */
  readonly index: number;
  /** How many there are. */
  readonly threads: number;
  /** One word: how many orders it was given. */
  readonly orders: SharedArrayBuffer;
}

/** A blob of which a thread answers reads by itself where everything is there. */
export interface SharedBlob {
  /** In hits. */
  readonly number: number;
  /** By which a driver's events name it. */
  readonly key: string;
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Of `FilledBlocks`. */
  readonly blocks: SharedArrayBuffer;
}

/** What a thread is told later. */
export type PumpOrder =
  | { readonly kind: 'share'; readonly blob: SharedBlob }
  | { readonly kind: 'forget'; readonly key: string };

/** What a thread tells. */
export type PumpReport<E> =
  | { readonly kind: 'events'; readonly events: readonly E[] }
  /** Reads that were answered: the blob's number, offset and count of each. */
  | { readonly kind: 'hits'; readonly hits: Float64Array }
  | { readonly kind: 'failed'; readonly message: string };
