/** What a blob has in the cache directory: its id followed by one of these. The first and the third as nydusd has them. */
export const DATA_SUFFIX = '.blob.data';
export const JOURNAL_SUFFIX = '.blob.fill';
export const META_SUFFIX = '.blob.meta';
export const TABLE_SUFFIX = '.blob.chunks';

/** In the order in which they are removed: without its journal what is left of a blob says nothing. */
export const SUFFIXES = [JOURNAL_SUFFIX, DATA_SUFFIX, META_SUFFIX, TABLE_SUFFIX];

export const BLOB_ID = /^[0-9a-f]{64}$/;
