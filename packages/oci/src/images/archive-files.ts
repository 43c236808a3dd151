import { mkdtemp, open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ByteString, byteStringOf, PantalaError, shown } from '@pantala/base';
import { compressionOf, decompressed } from '../compression/decompressed.ts';
import { memberPath } from '../tar/member-name.ts';
import { walkTar } from '../tar/walker.ts';
import { type LayoutFiles, readRange, type StoredFile } from './layout-files.ts';

/** Members of an archive of images: a file or two for each layer. */
export const MAX_ARCHIVE_MEMBERS = 100_000;
/** Links from name to name within an archive: older versions of docker save have one. */
const MAX_LINKS = 8;

type Member =
  | { readonly kind: 'file'; readonly offset: number; readonly size: number }
  | { readonly kind: 'link'; readonly target: ByteString };

/** The files of an archive, found by a walk over it and read from where they lie. Nothing is extracted. */
export class ArchiveFiles implements LayoutFiles {
  readonly name: string;
  /** The archive, or its decompressed copy. */
  readonly #path: string;
  readonly #members: ReadonlyMap<ByteString, Member>;
  readonly #temporary: string | undefined;

  private constructor(name: string, path: string, members: ReadonlyMap<ByteString, Member>, temporary?: string) {
    this.name = name;
    this.#path = path;
    this.#members = members;
    this.#temporary = temporary;
  }

  /**
   * @param path a tar; a compressed one is decompressed into a temporary file, since it is read here and there
   * @throws `not-found`; `invalid-argument` and `data-loss` as `walkTar` and `decompressed`
   */
  static async open(path: string, signal?: AbortSignal): Promise<ArchiveFiles> {
    const compression = compressionOf(await firstBytes(path));
    if (compression === 'none') return new ArchiveFiles(path, path, await membersOf(path, signal));
    const folder = await mkdtemp(join(tmpdir(), 'pantala-archive-'));
    try {
      const plain = join(folder, 'archive.tar');
      const { size } = await stat(path);
      {
        await using file = await open(plain, 'wx', 0o600);
        const options = signal === undefined ? {} : { signal };
        for await (const piece of decompressed(readRange(path, 0, size, signal), options)) await file.writeFile(piece);
      }
      return new ArchiveFiles(path, plain, await membersOf(plain, signal), folder);
    } catch (error) {
      await rm(folder, { recursive: true, force: true });
      throw error;
    }
  }

  async find(path: string): Promise<StoredFile | undefined> {
    let at = byteStringOf(path);
    for (let links = 0; links <= MAX_LINKS; links++) {
      const member = this.#members.get(at);
      if (member === undefined) return undefined;
      if (member.kind === 'file') {
        const { offset, size } = member;
        return { size, read: (signal, range) => readRange(this.#path, offset, size, signal, range) };
      }
      at = member.target;
    }
    throw new PantalaError('invalid-argument', `${shown(byteStringOf(path))} of ${this.name} is a link without end`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#temporary !== undefined) await rm(this.#temporary, { recursive: true, force: true });
  }
}

async function membersOf(path: string, signal: AbortSignal | undefined): Promise<Map<ByteString, Member>> {
  const members = new Map<ByteString, Member>();
  const { size } = await stat(path);
  const options = { maxEntries: MAX_ARCHIVE_MEMBERS, ...(signal === undefined ? {} : { signal }) };
  for await (const entry of walkTar(readRange(path, 0, size, signal), options)) {
    const { kind, linkTarget } = entry;
    if (kind === 'regular' && !entry.sparse)
      members.set(entry.path, { kind: 'file', offset: entry.contentOffset, size: entry.size });
    else if (kind === 'hardlink') members.set(entry.path, { kind: 'link', target: linkTarget });
    else if (kind === 'symlink') {
      const folder = entry.path.slice(0, entry.path.lastIndexOf('/') + 1);
      members.set(entry.path, { kind: 'link', target: memberPath(`${folder}${linkTarget}`) });
    }
  }
  return members;
}

async function firstBytes(path: string): Promise<Buffer> {
  const file = await open(path, 'r').catch((error: unknown) => {
    throw PantalaError.from(error);
  });
  await using opened = file;
  const buffer = Buffer.alloc(16);
  const { bytesRead } = await opened.read(buffer, 0, buffer.length, 0);
  return buffer.subarray(0, bytesRead);
}
