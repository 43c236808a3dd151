import { type ByteString, shown } from '@pantala/base';
import { type Difference, type Directory, differences, type FileChunks, type RegularFile } from '@pantala/rafs';

/** A tree that an image is compared with. */
export interface SourceTree<Content> {
  readonly root: Directory<Content>;
  /** Digests of the file's content, cut and digested as the image does it. */
  readonly digests: (file: RegularFile<Content>) => Promise<readonly Uint8Array[]>;
}

interface Pair<Content> {
  readonly path: ByteString;
  readonly source: RegularFile<Content>;
  readonly image: RegularFile<FileChunks>;
}

/**
 * Every difference between a source and an image: entries, kinds, permissions, owners, times, extended attributes,
 * link targets, devices, hard links, content. That chunks have the content of their digests is not looked at here
 * (`checkBlobs` does).
 */
export async function* imageDifferences<Content>(
  source: SourceTree<Content>,
  root: Directory,
): AsyncGenerator<Difference, void, undefined> {
  const pairs: Pair<Content>[] = [];
  for (const difference of differences(source.root, root, (expected, actual, path) => {
    pairs.push({ path, source: expected, image: actual });
    return undefined;
  })) {
    yield difference;
  }
  for (const pair of pairs) {
    const difference = await contentDifference(pair, source);
    if (difference !== undefined) yield difference;
  }
}

async function contentDifference<Content>(
  { path, source, image }: Pair<Content>,
  { digests }: SourceTree<Content>,
): Promise<Difference | undefined> {
  const expected = await digests(source);
  let offset = 0;
  for (const [index, chunk] of image.content.entries()) {
    const digest = expected[index];
    if (digest === undefined || Buffer.compare(chunk.digest, digest) !== 0) {
      const end = offset + chunk.uncompressedSize;
      const actual = `other bytes between ${offset} and ${end}`;
      return { path, what: 'content', expected: hex(digest), actual: `${actual}: ${hex(chunk.digest)}` };
    }
    offset += chunk.uncompressedSize;
  }
  return undefined;
}

function hex(digest: Uint8Array | undefined): string {
  return digest === undefined ? 'nothing' : Buffer.from(digest).toString('hex');
}

/** A line for people: `/etc/passwd: mode is 600, not 644`. */
export function differenceLine({ path, what, expected, actual }: Difference): string {
  switch (what) {
    case 'missing':
      return `${shown(path)}: a ${expected} is missing in the image`;
    case 'unexpected':
      return `${shown(path)}: a ${actual} that is not in the source`;
    case 'content':
      return `${shown(path)}: content has ${actual}, not ${expected}`;
    case 'links':
      return `${shown(path)}: is the same file as ${actual}, not as ${expected}`;
    default:
      return `${shown(path)}: ${what} is ${actual}, not ${expected}`;
  }
}
