import { PantalaError } from '@pantala/base';
import { prefetchNodes, readBootstrapFile } from '@pantala/convert';
import { type BlobInfo, encodeBootstrap, mergeLayers, PLACEHOLDER_ID, type RafsImage } from '@pantala/rafs';
import { type CommonOptions, counted, print, printJson } from '../../output.ts';
import { reportOf, WHITEOUT_SPECS } from './build.ts';
import { oneOf, type PrefetchChoice, prefetchOf } from './build-options.ts';
import { writeWholeFile } from './whole-file.ts';

interface MergeOptions extends CommonOptions, PrefetchChoice {
  readonly bootstrap: string;
  readonly parentBootstrap?: string;
  readonly whiteoutSpec: string;
  readonly blobDigests?: string;
  readonly blobSizes?: string;
  readonly blobTocDigests?: string;
  readonly blobTocSizes?: string;
  readonly outputJson?: string;
}

export async function mergeImages(sources: readonly string[], options: MergeOptions): Promise<number> {
  const began = performance.now();
  const spec = oneOf('--whiteout-spec', options.whiteoutSpec, WHITEOUT_SPECS);
  const facts = {
    ids: listOf('--blob-digests', options.blobDigests, sources.length, digestText),
    sizes: listOf('--blob-sizes', options.blobSizes, sources.length, wholeNumber),
    tocDigests: listOf('--blob-toc-digests', options.blobTocDigests, sources.length, digestText),
    tocSizes: listOf('--blob-toc-sizes', options.blobTocSizes, sources.length, wholeNumber),
  };
  const layers: RafsImage[] = [];
  if (options.parentBootstrap !== undefined) layers.push((await readBootstrapFile(options.parentBootstrap)).image);
  for (const [index, source] of sources.entries()) {
    const { image } = await readBootstrapFile(source);
    layers.push(
      withFacts(source, image, {
        id: facts.ids?.[index],
        size: facts.sizes?.[index],
        tocDigest: facts.tocDigests?.[index],
        tocSize: facts.tocSizes?.[index],
      }),
    );
  }
  const prefetch = await prefetchOf(options);
  if (prefetch?.policy === 'blob') {
    throw new PantalaError('invalid-argument', 'a merge moves no data: choose the prefetch policy fs');
  }
  const merged = mergeLayers(layers, { whiteouts: spec });
  const image = prefetch === undefined ? merged : { ...merged, prefetch: prefetchNodes(merged.root, prefetch) };
  await writeWholeFile(options.bootstrap, [encodeBootstrap(image)]);
  const seconds = (performance.now() - began) / 1000;
  const result = reportOf(image, options.bootstrap, { merge: Number(seconds.toFixed(3)) });
  if (options.outputJson !== undefined) {
    await writeWholeFile(options.outputJson, [Buffer.from(`${JSON.stringify(result, undefined, 2)}\n`)]);
  }
  if (options.json === true) printJson(result);
  else {
    print(
      `bootstrap ${options.bootstrap}: ${counted(sources.length, 'layer')}, ${counted(image.blobs.length, 'blob')}`,
    );
    for (const { id } of image.blobs) print(id);
  }
  return 0;
}

/** What is known of a layer's own blob beside its bootstrap. */
interface BlobFacts {
  readonly id: string | undefined;
  readonly size: number | undefined;
  readonly tocDigest: string | undefined;
  readonly tocSize: number | undefined;
}

/**
 * A bootstrap that was taken out of its blob does not know the blob's digest. It is never guessed from the file's name.
 *
 * @throws `invalid-argument` when it is not said, or when something else is said than the bootstrap says
 */
function withFacts(source: string, image: RafsImage, facts: BlobFacts): RafsImage {
  const own = image.blobs.filter(({ id }) => id === PLACEHOLDER_ID);
  if (own.length > 0 && facts.id === undefined) {
    throw new PantalaError(
      'invalid-argument',
      `${source} came out of a blob whose digest it does not know: name the blob itself, or all digests with --blob-digests`,
    );
  }
  const named = facts.id ?? image.blobs[0]?.id;
  const known = image.blobs.map((blob) =>
    blob.id === PLACEHOLDER_ID && named !== undefined ? { ...blob, id: named } : blob,
  );
  const target = known.find(({ id }) => id === named);
  if (facts.id !== undefined && target === undefined && known.length > 0) {
    throw new PantalaError(
      'invalid-argument',
      `--blob-digests says ${facts.id} for ${source}, which names ${known[0]?.id}`,
    );
  }
  return { ...image, blobs: known.map((blob) => (blob === target ? completed(blob, facts) : blob)) };
}

function completed(blob: BlobInfo, { size, tocDigest, tocSize }: BlobFacts): BlobInfo {
  return {
    ...blob,
    ...(size === undefined ? {} : { compressedSize: size }),
    ...(tocDigest === undefined ? {} : { tocDigest: Buffer.from(tocDigest, 'hex') }),
    ...(tocSize === undefined ? {} : { tocSize }),
  };
}

function listOf<Value>(
  option: string,
  text: string | undefined,
  count: number,
  parse: (option: string, item: string) => Value,
): Value[] | undefined {
  if (text === undefined) return undefined;
  const items = text.split(',').map((item) => parse(option, item.trim()));
  if (items.length === count) return items;
  throw new PantalaError('invalid-argument', `${option} has ${items.length} entries for ${count} bootstraps`);
}

function digestText(option: string, item: string): string {
  const hex = item.replace(/^sha256:/, '');
  if (!/^[0-9a-f]{64}$/.test(hex))
    throw new PantalaError('invalid-argument', `${option}: "${item}" is no SHA-256 digest`);
  return hex;
}

function wholeNumber(option: string, item: string): number {
  if (!/^\d{1,15}$/.test(item))
    throw new PantalaError('invalid-argument', `${option}: "${item}" is no number of bytes`);
  return Number(item);
}
