export { BlobCache, type BlobCacheParts, type BlobHandle, type CacheUsage } from './blob-cache.ts';
export { type LayoutParts, layoutOf, layoutsOf } from './blob-layouts.ts';
export type { ChunkGroup, ChunkLayout, DecodedChunk } from './chunk-layout.ts';
export type { BlobAccess, ReadEvent } from './context.ts';
export type { BlobFetcher, Fetched, FetchOptions } from './fetcher.ts';
export type { FillCounters } from './metrics.ts';
export type { BlobCacheOptions } from './options.ts';
export { RafsLayout } from './rafs-layout.ts';
export type { FillEvent } from './trace.ts';
