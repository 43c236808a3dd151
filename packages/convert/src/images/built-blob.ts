import { PantalaError, sha256Hex } from '@pantala/base';
import {
  decodeBootstrap,
  META_HEADER_LENGTH,
  PLACEHOLDER_ID,
  type RafsImage,
  readBlobSections,
  readSection,
  SECTION_HEADER_LENGTH,
  SECTIONS,
  type StoredBlob,
  TOC_ENTRY_LENGTH,
} from '@pantala/rafs';
import { metaFile } from './bootstrap-layer.ts';

/** What a blob with its layer's bootstrap says of itself. */
export interface BuiltBlobContent {
  readonly image: RafsImage;
  /** SHA-256 of the bootstrap, hex. */
  readonly bootstrapDigest: string;
  /** Whether a file of the layer has data in it. */
  readonly needed: boolean;
  /** Chunk information as a bootstrap layer has it. */
  readonly meta: Uint8Array | undefined;
}

/**
 * Reads a blob from its end, as it was built of one layer.
 *
 * @param stored its name is its digest
 * @throws `data-loss` with field and offset; `invalid-argument` without a bootstrap in it
 */
export async function readBuiltBlob(stored: StoredBlob): Promise<BuiltBlobContent> {
  const id = stored.name.replace(/^sha256:/, '');
  const sections = await readBlobSections(stored);
  if (sections.bootstrap === undefined) throw new PantalaError('invalid-argument', `blob ${id} has no bootstrap in it`);
  const bytes = await readSection(stored, sections.bootstrap, SECTIONS.bootstrap);
  const decoded = decodeBootstrap(bytes);
  const own = decoded.blobs.find((blob) => blob.id === PLACEHOLDER_ID);
  // What a bootstrap cannot say of the blob that it lies in.
  const facts = { id, compressedSize: stored.size, ...(await tocFacts(stored, sections.toc.length)) };
  const blobs = decoded.blobs.map((blob) => (blob === own ? { ...blob, ...facts } : blob));
  const image = { ...decoded, blobs };
  const bootstrapDigest = sha256Hex(bytes);
  if (own === undefined || sections.chunkInformation === undefined)
    return { image, bootstrapDigest, needed: own !== undefined, meta: undefined };
  const information = await readSection(stored, sections.chunkInformation, SECTIONS.chunkInformation);
  const start = own.chunkInfo.offset + own.chunkInfo.compressedSize;
  const header = await stored.read({ start, end: start + META_HEADER_LENGTH });
  return { image, bootstrapDigest, needed: true, meta: metaFile({ information, header }) };
}

/** Size and digest of the table of contents with its header. */
async function tocFacts(
  stored: StoredBlob,
  entries: number,
): Promise<{ readonly tocSize: number; readonly tocDigest: Uint8Array } | undefined> {
  if (entries === 0) return undefined;
  const tocSize = entries * TOC_ENTRY_LENGTH + SECTION_HEADER_LENGTH;
  const bytes = await stored.read({ start: stored.size - tocSize, end: stored.size });
  return { tocSize, tocDigest: Buffer.from(sha256Hex(bytes), 'hex') };
}
