import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { PantalaError } from '@pantala/base';
import {
  type DigestRule,
  directorySourceTree,
  imageDifferences,
  imageSourceTree,
  isBootstrapFile,
  isNydusManifest,
  layeredSourceTree,
  tarSourceTree,
} from '@pantala/convert';
import {
  decompressed,
  hostPlatform,
  type ImageManifest,
  openImageSource,
  parsePlatformText,
  selectImage,
  walkTar,
} from '@pantala/oci';
import type { Difference } from '@pantala/rafs';
import { accessOf } from './access.ts';
import { type ImageInputOptions, type OpenedImage, openImage } from './input.ts';
import { inFile, misnamed } from './misnamed.ts';

/** Bytes of a tar that are read at once. */
const READ_LENGTH = 1024 * 1024;

type AgainstOptions = Omit<ImageInputOptions, 'bootstrap' | 'blobDir'>;
type Differences = AsyncGenerator<Difference, void, undefined>;

/**
 * What differs between an image and a source: a directory, a tar (plain, gzip or zstd), a bootstrap with its blobs
 * beside it, or an image of either kind in a registry, an OCI layout or an archive.
 *
 * @throws `not-found`; `invalid-argument` when it is none of them
 */
export async function* differencesFrom(
  source: string,
  { image }: OpenedImage,
  options: AgainstOptions,
  signal: AbortSignal,
): Differences {
  const rule: DigestRule = { digester: image.digester, chunkSize: image.chunkSize };
  const found = await stat(source).catch(() => undefined);
  if (found?.isDirectory() === true && !(await isLayout(source))) {
    yield* imageDifferences(await directorySourceTree(source, rule, signal), image.root);
  } else if (found?.isFile() === true && (await isBootstrapFile(source))) {
    yield* againstNydus(source, image.root, options, rule, signal);
  } else if (found?.isFile() === true && !(await isArchive(source))) {
    const stream = createReadStream(source, { highWaterMark: READ_LENGTH });
    yield* imageDifferences(await tarSourceTree(stream, rule, signal), image.root);
  } else {
    try {
      yield* againstImage(source, image.root, options, rule, signal);
    } catch (thrown) {
      throw await misnamed(source, thrown);
    }
  }
}

async function isLayout(directory: string): Promise<boolean> {
  return (await stat(join(directory, 'oci-layout')).catch(() => undefined))?.isFile() === true;
}

/** First members of archives of images, whoever wrote them. */
const ARCHIVED = /^(?:blobs|oci-layout|index\.json|manifest\.json|repositories|[0-9a-f]{64}(?:\.json|\.tar)?)(?:\/|$)/;

/** Whether a tar is an archive of an image and no layer: its first member tells. */
async function isArchive(path: string): Promise<boolean> {
  const stream = createReadStream(path, { highWaterMark: READ_LENGTH });
  try {
    for await (const { path: name } of walkTar(decompressed(stream))) {
      if (name !== '') return ARCHIVED.test(name);
    }
  } catch (thrown) {
    throw inFile(path, thrown);
  }
  return false;
}

async function* againstNydus(
  source: string,
  root: OpenedImage['image']['root'],
  options: AgainstOptions,
  rule: DigestRule,
  signal: AbortSignal,
): Differences {
  await using other = await openImage(source, options, signal);
  yield* imageDifferences(imageSourceTree(other.blobs, rule, signal), root);
}

async function* againstImage(
  name: string,
  root: OpenedImage['image']['root'],
  options: AgainstOptions,
  rule: DigestRule,
  signal: AbortSignal,
): Differences {
  await using source = await openImageSource(name, accessOf(options, signal));
  const platform = options.platform === undefined ? hostPlatform() : parsePlatformText(options.platform);
  const first = await source.root(signal);
  const { manifest } = first.manifest.kind === 'image' ? first : await selectImage(source, first, platform, signal);
  if (isNydusManifest(manifest)) {
    yield* againstNydus(name, root, options, rule, signal);
    return;
  }
  if (manifest.kind === 'index')
    throw new PantalaError('invalid-argument', `${name} has an index in the place of an image`);
  const layers = (manifest satisfies ImageManifest).layers.map((layer) => source.blob(layer, { signal }));
  yield* imageDifferences(await layeredSourceTree(layers, rule, signal), root);
}
