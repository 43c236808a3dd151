import { createHash } from 'node:crypto';
import { type FileHandle, open } from 'node:fs/promises';
import { PantalaError } from '@pantala/base';
import {
  decodeBootstrap,
  MAX_BOOTSTRAP_LENGTH,
  PLACEHOLDER_ID,
  type RafsImage,
  readBlobSections,
  readSection,
  SECTIONS,
  type StoredBlob,
} from '@pantala/rafs';
import { readFully } from './stored-blobs.ts';

/** Where EROFS has its magic number, and that number (EROFS on-disk format). */
const SUPERBLOCK = 1024;
const MAGIC = 0xe0f5_e1e2;
/** Bytes of a blob that are digested at once. */
const STEP = 4 * 1024 * 1024;

export interface BootstrapFile {
  readonly path: string;
  readonly bytes: Uint8Array;
  /** With the blob's real id where the bootstrap lies in a blob and cannot say it. */
  readonly image: RafsImage;
  /** The blob that the bootstrap lies in; undefined for a file of its own. */
  readonly blob: { readonly id: string; readonly size: number } | undefined;
}

/**
 * Reads a bootstrap: a file that is one, or a blob with an inlined one.
 *
 * @throws `not-found`; `invalid-argument` when it is neither; `data-loss` with field and offset when it is damaged
 */
export async function readBootstrapFile(path: string): Promise<BootstrapFile> {
  const file = await open(path);
  try {
    const { size } = await file.stat();
    if (await isBootstrap(file, size)) {
      if (size > MAX_BOOTSTRAP_LENGTH) {
        throw new PantalaError(
          'data-loss',
          `${path} has ${size} bytes; a bootstrap has ${MAX_BOOTSTRAP_LENGTH} at most`,
        );
      }
      const bytes = await readFully(file, path, { start: 0, end: size });
      return { path, bytes, image: decodeBootstrap(bytes), blob: undefined };
    }
    return await readInlined(path, { name: path, size, read: (range) => readFully(file, path, range) });
  } finally {
    await file.close();
  }
}

/** Whether a file begins like a bootstrap. */
export async function isBootstrapFile(path: string): Promise<boolean> {
  const file = await open(path);
  try {
    return await isBootstrap(file, (await file.stat()).size);
  } finally {
    await file.close();
  }
}

async function isBootstrap(file: FileHandle, size: number): Promise<boolean> {
  if (size < SUPERBLOCK + 4) return false;
  const magic = Buffer.alloc(4);
  await file.read(magic, 0, 4, SUPERBLOCK);
  return magic.readUInt32LE() === MAGIC;
}

async function readInlined(path: string, stored: StoredBlob): Promise<BootstrapFile> {
  const sections = await readBlobSections(stored).catch((error: unknown) => {
    const cause = PantalaError.from(error);
    if (cause.code !== 'invalid-argument') throw cause;
    throw new PantalaError('invalid-argument', `${path} is neither a RAFS v6 bootstrap nor a blob of a Nydus image`, {
      cause,
    });
  });
  if (sections.bootstrap === undefined) {
    throw new PantalaError('invalid-argument', `${path} is a blob without a bootstrap in it; name the bootstrap`);
  }
  const bytes = await readSection(stored, sections.bootstrap, SECTIONS.bootstrap);
  const id = await digestOf(stored);
  const image = decodeBootstrap(bytes);
  const blobs = image.blobs.map((blob) =>
    blob.id === PLACEHOLDER_ID ? { ...blob, id, compressedSize: stored.size } : blob,
  );
  return { path, bytes, image: { ...image, blobs }, blob: { id, size: stored.size } };
}

async function digestOf(stored: StoredBlob): Promise<string> {
  const hash = createHash('sha256');
  for (let start = 0; start < stored.size; start += STEP) {
    hash.update(await stored.read({ start, end: Math.min(stored.size, start + STEP) }));
  }
  return hash.digest('hex');
}
