import type { DigestAlgorithm } from '@pantala/base';

/** What the main thread tells the worker. Descriptors are the process's own: the worker reads the same files. */
export type DigestCommand =
  | {
      readonly kind: 'begin';
      readonly id: number;
      readonly fd: number;
      readonly algorithm: DigestAlgorithm;
      readonly length: number;
    }
  /** Bytes before `end` may be read now. */
  | { readonly kind: 'extend'; readonly id: number; readonly end: number }
  | { readonly kind: 'drop'; readonly id: number };

/** What the worker tells the main thread. After it, the worker no longer uses the descriptor. */
export type DigestReport =
  | { readonly kind: 'digest'; readonly id: number; readonly hex: string }
  | { readonly kind: 'failed'; readonly id: number; readonly message: string }
  | { readonly kind: 'dropped'; readonly id: number };
