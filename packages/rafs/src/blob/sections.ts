import { type ByteRange, PantalaError } from '@pantala/base';
import { MAX_BOOTSTRAP_LENGTH } from '../bootstrap/limits.ts';
import { decompress } from '../codec/compression.ts';
import { DIGEST_LENGTH, sha256 } from '../codec/digests.ts';
import type { BlobInfo, Compressor } from '../image.ts';
import { malformed } from '../malformed.ts';
import { type ChunkInformation, decodeChunkInformation } from './chunk-information.ts';

import { decodeMetaHeader, endsLikeMetaHeader, META_HEADER_LENGTH, type MetaHeader } from './meta-header.ts';
import { decodeSectionHeader, isSectionHeader, SECTION_HEADER_LENGTH, SECTIONS } from './section-header.ts';
import { decodeToc, MAX_TOC_ENTRIES, TOC_ENTRY_LENGTH, type TocEntry } from './toc.ts';

/** A stored blob to read from: a file, or ranges of a registry's blob. */
export interface StoredBlob {
  /** Its digest in hex or its path, for errors. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Exactly the bytes of `range`. */
  read(range: ByteRange): Promise<Uint8Array>;
}

/** A section as it lies in the stored blob. */
export interface Section {
  readonly range: ByteRange;
  readonly compressor: Compressor;
  /** Decompressed bytes; undefined when it is not said. */
  readonly size: number | undefined;
  /** SHA-256 of the decompressed section, of the data as it is; undefined when it is not said. */
  readonly digest: Uint8Array | undefined;
}

/** What a stored blob consists of. */
export interface BlobSections {
  readonly data: Section;
  readonly chunkInformation: Section | undefined;
  readonly metaHeader: MetaHeader | undefined;
  /** 32 bytes for each chunk. */
  readonly digests: Section | undefined;
  readonly bootstrap: Section | undefined;
  readonly toc: readonly TocEntry[];
}

/**
 * Finds the sections of a blob from its end: by its table of contents, by the headers behind the sections, or, in
 * blobs without either, by the header of the chunk information. Two small reads, three at most.
 *
 * @throws `data-loss` with field and offset; `invalid-argument` for a file that is none of them
 */
export async function readBlobSections(blob: StoredBlob): Promise<BlobSections> {
  const file = `blob ${blob.name}`;
  const tail = await blob.read({ start: Math.max(0, blob.size - META_HEADER_LENGTH), end: blob.size });
  const header = tail.subarray(-SECTION_HEADER_LENGTH);
  const headerOffset = blob.size - SECTION_HEADER_LENGTH;
  if (header.length === SECTION_HEADER_LENGTH && isSectionHeader(header)) {
    const { name, size } = decodeSectionHeader(header, headerOffset, file);
    if (name !== SECTIONS.toc) return walk(blob, file);
    const range = { start: headerOffset - size, end: headerOffset };
    if (size > MAX_TOC_ENTRIES * TOC_ENTRY_LENGTH) {
      throw malformed(file, 'size of the section', headerOffset + 124, `is ${size}, too much for a table of contents`);
    }
    const toc = decodeToc(await blob.read(range), range.start, file);
    return fromToc(blob, toc, file);
  }
  if (tail.length === META_HEADER_LENGTH && endsLikeMetaHeader(tail)) {
    const start = blob.size - META_HEADER_LENGTH;
    return withoutHeaders(decodeMetaHeader(tail, start, file), start, file);
  }
  throw new PantalaError('invalid-argument', `${file} of ${blob.size} bytes ends like no blob of a Nydus image`);
}

/**
 * The chunk information of a blob, found by what the image says about it: one read.
 *
 * @param blob that holds it: for separate ones not the one with the data
 * @throws `data-loss` with field and offset, also when it is that of another blob
 */
export async function readChunkInformation(blob: StoredBlob, info: BlobInfo): Promise<ChunkInformation> {
  const file = `blob ${blob.name}`;
  const { offset, compressedSize, compressor, uncompressedSize } = info.chunkInfo;
  const end = offset + compressedSize + META_HEADER_LENGTH;
  if (end > blob.size) {
    throw new PantalaError('data-loss', `${file} has ${blob.size} bytes; its chunk information should end at ${end}`);
  }
  const bytes = await blob.read({ start: offset, end });
  const header = decodeMetaHeader(bytes.subarray(compressedSize), offset + compressedSize, file);
  if (header.entries !== info.chunkCount) {
    throw malformed(
      file,
      'ci_entries',
      offset + compressedSize + 12,
      `is ${header.entries}; the image says ${info.chunkCount}`,
    );
  }
  const decoded = decompressSection(
    bytes.subarray(0, compressedSize),
    compressor,
    uncompressedSize,
    'chunk information',
    file,
  );
  return decodeChunkInformation(decoded, header, file);
}

/** A section, decompressed and checked against its digest where the table of contents has one. @throws `data-loss` */
export async function readSection(blob: StoredBlob, section: Section, name: string): Promise<Uint8Array> {
  const file = `blob ${blob.name}`;
  const length = section.range.end - section.range.start;
  const size = section.size ?? length;
  if (Math.max(size, length) > MAX_BOOTSTRAP_LENGTH) {
    throw new PantalaError(
      'data-loss',
      `${file}: section ${name} has ${size} bytes, more than ${MAX_BOOTSTRAP_LENGTH}`,
    );
  }
  const bytes = decompressSection(await blob.read(section.range), section.compressor, size, name, file);
  if (section.digest !== undefined && !sha256(bytes).equals(section.digest)) {
    throw new PantalaError('data-loss', `${file}: section ${name} has not the digest of the table of contents`);
  }
  return bytes;
}

/** The same as `readChunkInformation`, without an image: by the blob's own sections. Undefined when it has none. */
export async function readOwnChunkInformation(
  blob: StoredBlob,
  sections: BlobSections,
): Promise<ChunkInformation | undefined> {
  if (sections.chunkInformation === undefined || sections.metaHeader === undefined) return undefined;
  const bytes = await readSection(blob, sections.chunkInformation, SECTIONS.chunkInformation);
  return decodeChunkInformation(bytes, sections.metaHeader, `blob ${blob.name}`);
}

function decompressSection(
  stored: Uint8Array,
  compressor: Compressor,
  size: number,
  name: string,
  file: string,
): Uint8Array {
  try {
    return decompress(compressor, stored, size);
  } catch (error) {
    const cause = PantalaError.from(error);
    throw new PantalaError(cause.code, `${file}: section ${name}: ${cause.message}`, { cause });
  }
}

async function fromToc(blob: StoredBlob, toc: readonly TocEntry[], file: string): Promise<BlobSections> {
  const section = (name: string): Section | undefined => {
    const entry = toc.find((candidate) => candidate.name === name);
    if (entry === undefined) return undefined;
    const start = name === SECTIONS.data ? 0 : entry.offset;
    const end = start + entry.compressedSize;
    if (end > blob.size) throw new PantalaError('data-loss', `${file}: section ${name} ends at ${end} of ${blob.size}`);
    if (entry.compressor === 'none' && name !== SECTIONS.data && entry.compressedSize !== entry.uncompressedSize) {
      throw new PantalaError('data-loss', `${file}: section ${name} is not compressed but has two sizes`);
    }
    return { range: { start, end }, compressor: entry.compressor, size: entry.uncompressedSize, digest: entry.digest };
  };
  const header = section(SECTIONS.metaHeader);
  const data = section(SECTIONS.data);
  const digests = section(SECTIONS.digests);
  let metaHeader: MetaHeader | undefined;
  if (header !== undefined) {
    if (header.range.end - header.range.start !== META_HEADER_LENGTH) {
      throw new PantalaError(
        'data-loss',
        `${file}: section ${SECTIONS.metaHeader} has not ${META_HEADER_LENGTH} bytes`,
      );
    }
    const bytes = await readSection(blob, header, SECTIONS.metaHeader);
    metaHeader = decodeMetaHeader(bytes, header.range.start, file);
    checkDigestCount(digests, metaHeader, file);
  }
  return {
    data: data ?? { range: { start: 0, end: 0 }, compressor: 'none', size: 0, digest: undefined },
    chunkInformation: section(SECTIONS.chunkInformation),
    metaHeader,
    digests,
    bootstrap: section(SECTIONS.bootstrap),
    toc,
  };
}

function checkDigestCount(digests: Section | undefined, header: MetaHeader, file: string): void {
  if (digests?.size !== undefined && digests.size !== header.entries * DIGEST_LENGTH) {
    throw new PantalaError('data-loss', `${file}: ${digests.size} bytes of digests for ${header.entries} chunks`);
  }
}

/** More headers than this are no blob's. */
const MAX_SECTIONS = 16;

/** From the last header to the first; each says how long the section before it is. */
async function walk(blob: StoredBlob, file: string): Promise<BlobSections> {
  const found = new Map<string, ByteRange>();
  for (let end = blob.size; end > 0; ) {
    const headerOffset = end - SECTION_HEADER_LENGTH;
    if (headerOffset < 0 || found.size === MAX_SECTIONS) {
      throw malformed(file, 'sections', Math.max(0, headerOffset), 'do not reach the beginning of the blob');
    }
    const { name, size } = decodeSectionHeader(await blob.read({ start: headerOffset, end }), headerOffset, file);
    if (found.has(name)) throw malformed(file, 'name of the section', headerOffset, `is ${name} for the second time`);
    found.set(name, { start: headerOffset - size, end: headerOffset });
    end = headerOffset - size;
  }
  const raw = (name: string): Section | undefined => {
    const range = found.get(name);
    return range && { range, compressor: 'none', size: range.end - range.start, digest: undefined };
  };
  const meta = found.get(SECTIONS.chunkInformation);
  const rest = { digests: raw(SECTIONS.digests), bootstrap: raw(SECTIONS.bootstrap), toc: [] };
  const data = raw(SECTIONS.data) ?? { range: { start: 0, end: 0 }, compressor: 'none', size: 0, digest: undefined };
  if (meta === undefined) return { data, chunkInformation: undefined, metaHeader: undefined, ...rest };
  const start = meta.end - META_HEADER_LENGTH;
  if (start < meta.start) throw malformed(file, 'size of the section', meta.end + 124, 'is too little for a header');
  const header = decodeMetaHeader(await blob.read({ start, end: meta.end }), start, file);
  checkDigestCount(rest.digests, header, file);
  return { ...chunkInformationBefore(header, start, file), data, ...rest };
}

/** `[data][chunk information][header]`, with nothing in between. */
function withoutHeaders(header: MetaHeader, start: number, file: string): BlobSections {
  return {
    data: { range: { start: 0, end: header.offset }, compressor: 'none', size: header.offset, digest: undefined },
    ...chunkInformationBefore(header, start, file),
    digests: undefined,
    bootstrap: undefined,
    toc: [],
  };
}

function chunkInformationBefore(
  header: MetaHeader,
  headerStart: number,
  file: string,
): { readonly chunkInformation: Section; readonly metaHeader: MetaHeader } {
  const end = header.offset + header.compressedSize;
  if (end !== headerStart) {
    throw malformed(
      file,
      'ci_offset',
      headerStart + 16,
      `is ${header.offset}: chunk information of ${header.compressedSize} bytes from there does not end at its header`,
    );
  }
  const range = { start: header.offset, end };
  return {
    chunkInformation: { range, compressor: header.compressor, size: header.uncompressedSize, digest: undefined },
    metaHeader: header,
  };
}
