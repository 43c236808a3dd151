import type { BlobOutcome, Platform } from '@pantala/oci';

/** A layer on its way. */
export interface LayerName {
  /** Of the source. */
  readonly digest: string;
  /** Bytes of the source. */
  readonly size: number;
  /** Of its image, from 0. */
  readonly index: number;
  readonly count: number;
  readonly platform: Platform;
}

export interface NewBlob {
  /** `sha256:<hex>` */
  readonly digest: string;
  readonly size: number;
}

export type ConversionEvent =
  | {
      readonly kind: 'layer';
      readonly layer: LayerName;
      /** Files so far, their bytes, and bytes of the source that were read. */
      readonly files: number;
      readonly bytes: number;
      readonly read: number;
    }
  /** Its blob is undefined when it holds no data of its own. */
  | {
      readonly kind: 'layer-done';
      readonly layer: LayerName;
      readonly blob: NewBlob | undefined;
      /** Whether it was found in the cache. */
      readonly cached: boolean;
    }
  | { readonly kind: 'blob'; readonly digest: string; readonly size: number; readonly outcome: BlobOutcome }
  | { readonly kind: 'image'; readonly digest: string; readonly platform: Platform };

export type ConversionProgress = (event: ConversionEvent) => void;
