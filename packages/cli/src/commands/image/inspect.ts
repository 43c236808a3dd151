import { byteStringOf, PantalaError } from '@pantala/base';
import { linkCounts, listedEntry, listedLine, treeEntries } from '@pantala/convert';
import { BLOB_FEATURES, type BlobInfo, type Chunk, type Node, nodeAt, type RafsImage } from '@pantala/rafs';
import { print, printJson, table } from '../../output.ts';
import { type ImageInputOptions, openImage } from './input.ts';

interface InspectOptions extends ImageInputOptions {
  readonly path: readonly string[];
  readonly blobs?: boolean;
  readonly chunks?: boolean;
  readonly prefetch?: boolean;
}

export async function inspectImage(argument: string | undefined, options: InspectOptions): Promise<number> {
  await using opened = await openImage(argument, options);
  const { image } = opened;
  const json = options.json === true;
  if (options.blobs === true) listBlobs(image, json);
  else if (options.prefetch === true) listPrefetch(image, json);
  else listEntries(image, options);
  return 0;
}

function listEntries(image: RafsImage, options: InspectOptions): void {
  const counts = linkCounts(image.root);
  const out = new Lines();
  for (const entry of treeEntries(image.root)) {
    if (!isWanted(entry.path, options.path)) continue;
    const nlink = counts.get(entry.node) ?? 1;
    const chunks = options.chunks === true && entry.node.kind === 'regular' ? entry.node.content : undefined;
    if (options.json === true) {
      const listed = listedEntry(entry, nlink);
      out.add(JSON.stringify(chunks === undefined ? listed : { ...listed, chunks: chunks.map(chunkFacts) }));
      continue;
    }
    out.add(listedLine(entry, nlink));
    for (const chunk of chunks ?? []) out.add(`    ${chunkLine(chunk)}`);
  }
  out.flush();
  for (const path of options.path) {
    if (nodeAt(image.root, byteStringOf(path)) === undefined) {
      throw new PantalaError('not-found', `the image has no ${path}`);
    }
  }
}

/** Whether a path is one of those that were named, or below one. */
function isWanted(path: string, wanted: readonly string[]): boolean {
  if (wanted.length === 0) return true;
  return wanted.some((given) => {
    const name = byteStringOf(given).replace(/^\/+|\/+$/g, '');
    return name === '' || name === '.' || path === name || path.startsWith(`${name}/`);
  });
}

function chunkFacts(chunk: Chunk) {
  const { blobIndex, index, compressedOffset, compressedSize, uncompressedOffset, uncompressedSize } = chunk;
  const digest = Buffer.from(chunk.digest).toString('hex');
  const { compressed, batched } = chunk;
  return {
    digest,
    blobIndex,
    index,
    compressedOffset,
    compressedSize,
    uncompressedOffset,
    uncompressedSize,
    compressed,
    batched,
  };
}

function chunkLine(chunk: Chunk): string {
  const { digest, blobIndex, index, compressedOffset, compressedSize, uncompressedSize } = chunkFacts(chunk);
  const stored = chunk.batched ? 'in a batch' : `${compressedOffset}+${compressedSize}`;
  return `${digest}  blob ${blobIndex}, chunk ${index}, stored ${stored}, ${uncompressedSize} bytes`;
}

function listBlobs(image: RafsImage, json: boolean): void {
  if (json) {
    for (const [index, blob] of image.blobs.entries()) printJson({ index, ...blobFacts(blob) });
    return;
  }
  const rows = image.blobs.map((blob, index) => [
    String(index),
    blob.id,
    blob.compressor,
    blob.digester,
    String(blob.chunkSize),
    String(blob.chunkCount),
    String(blob.compressedSize),
    String(blob.uncompressedSize),
    featureNames(blob).join(','),
  ]);
  const heads = ['BLOB', 'ID', 'COMPRESSOR', 'DIGESTER', 'CHUNK SIZE', 'CHUNKS', 'STORED', 'DECODED', 'FEATURES'];
  print(table([heads, ...rows]));
}

function blobFacts(blob: BlobInfo) {
  const { id, compressor, digester, chunkSize, chunkCount, compressedSize, uncompressedSize, chunkInfo } = blob;
  const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
  return {
    id,
    compressor,
    digester,
    chunkSize,
    chunkCount,
    compressedSize,
    uncompressedSize,
    features: featureNames(blob),
    chunkInfo,
    tocSize: blob.tocSize,
    tocDigest: hex(blob.tocDigest),
    metaSize: blob.metaSize,
    metaDigest: hex(blob.metaDigest),
  };
}

function featureNames({ features }: BlobInfo): string[] {
  return Object.entries(BLOB_FEATURES).flatMap(([name, bit]) => ((features & bit) !== 0 ? [name] : []));
}

function listPrefetch(image: RafsImage, json: boolean): void {
  const wanted = new Set<Node>(image.prefetch);
  const paths = new Map<Node, string>();
  const counts = linkCounts(image.root);
  for (const entry of treeEntries(image.root)) {
    if (!wanted.has(entry.node) || paths.has(entry.node)) continue;
    const nlink = counts.get(entry.node) ?? 1;
    paths.set(entry.node, json ? JSON.stringify(listedEntry(entry, nlink)) : listedLine(entry, nlink));
  }
  for (const node of image.prefetch) print(paths.get(node) ?? '');
}

/** Characters that are written at once. */
const WRITTEN_AT_ONCE = 64 * 1024;

/** Hundreds of thousands of lines, without a call for each. */
class Lines {
  #text = '';

  add(line: string): void {
    this.#text += `${line}\n`;
    if (this.#text.length >= WRITTEN_AT_ONCE) this.flush();
  }

  flush(): void {
    process.stdout.write(this.#text);
    this.#text = '';
  }
}
